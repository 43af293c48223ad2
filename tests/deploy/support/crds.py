"""Objects of custom resources, judged by @kubernetes-models (see crds.mjs)."""

import fcntl
import json
import subprocess
from pathlib import Path

from . import paths
from .manifests import Object

PACKAGES = (
    "@kubernetes-models/prometheus-operator@6.0.0",
    "@kubernetes-models/gateway-api@2.0.0",
    "@kubernetes-models/envoy-gateway@2.0.0",
    "@kubernetes-models/istio@3.0.1",
    "@kubernetes-models/traefik@2.0.0",
    "typescript@5.9.3",
)


def install(place: Path, *packages: str) -> Path:
    """Puts npm packages into a folder outside of the tree, once for all runs."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            _npm("install", "--prefix", str(place), "--no-audit", "--no-fund", "--ignore-scripts", *packages)
            (place / "complete").touch()
    return place


def findings(objects: list[tuple[str, Object]]) -> list[str]:
    """What schemas and types say against objects, each given with the name to report it by."""
    place = install(paths.cache(f"crds-{paths.digest(*PACKAGES)}"), *PACKAGES)
    given = json.dumps([{"name": name, "object": found} for name, found in objects])
    command = ["node", str(Path(__file__).with_suffix(".mjs")), str(place)]
    answer = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def _npm(*arguments: str) -> None:
    try:
        answer = subprocess.run(["npm", *arguments, "--loglevel=error"], capture_output=True, text=True, timeout=300)
    except FileNotFoundError:
        raise AssertionError("npm is not there; type: apt-get install nodejs npm") from None
    assert answer.returncode == 0, answer.stderr
