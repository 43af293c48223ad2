"""Real Helm (its Go SDK): what renders, what is refused, and with which words."""

import functools
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import helm_python
import yaml
from helm_python import Chart, _native
from helm_python.chart import lint as _lint

from . import manifests
from .manifests import Object

RELEASE, NAMESPACE = "demo", "apps"
LONG_AGO = 1_700_000_000


def values(path: Path) -> dict[str, Any]:
    """A values file."""
    return yaml.safe_load(path.read_text()) or {}


@functools.cache
def _chart(path: Path) -> Chart:
    return Chart.load(path)


def render_text(path: Path, given: dict[str, Any], version: str) -> dict[str, str]:
    """Template by template what `helm template --kube-version` gives. `render()` of the SDK has no version."""
    options = {"name": RELEASE, "namespace": NAMESPACE, "kube_version": f"v{version}.0"}
    return _rendered(path, json.dumps(given, sort_keys=True), json.dumps(options))


@functools.cache
def _rendered(path: Path, given: str, options: str) -> dict[str, str]:
    return json.loads(_native.call_string("helm_render", _chart(path)._raw(), given, options))


def render(path: Path, given: dict[str, Any], version: str = "1.33") -> list[Object]:
    """The objects of a release."""
    rendered = render_text(path, given, version)
    return [found for name, text in rendered.items() if name.endswith(".yaml") for found in manifests.load(text)]


def refusal(path: Path, given: dict[str, Any], version: str = "1.33") -> str:
    """With which words Helm refuses values, by schema or by a guard in a template."""
    try:
        render(path, given, version)
    except helm_python.HelmError as error:
        return str(error)
    raise AssertionError(f"Helm accepts {given}")


def lint(path: Path, given: dict[str, Any], version: str) -> list[str]:
    """What `helm lint --strict` says: warnings and errors."""
    report = _lint(path, given, strict=True, kube_version=f"v{version}.0")
    said = [f"{message['path']}: {message['error']}" for message in report["messages"] if message["severity"] > 1]
    return said + report["errors"]


def with_dependencies(path: Path, root: Path, place: Path) -> Path:
    """A copy of a chart, its `file://` dependencies built; the tree stays as it is."""
    copy = place / "helm"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    chart = copy / path.relative_to(root)
    _native.call_status("helm_dependency_build", str(chart), None)
    return chart


def digests(path: Path, place: Path) -> set[str]:
    """The digests of two packages of a chart; one, if it can be reproduced.

    The archive has the files' times, so they are set as the chart's README says. None in it may be
    the clock's: then it does not matter when a package is made.
    """
    found = set()
    for name in ("one", "other"):
        copy = place / name / path.name
        shutil.copytree(path, copy)
        for file in [copy, *copy.rglob("*")]:
            os.utime(file, (LONG_AGO, LONG_AGO))
        package = Path(helm_python.package(copy, destination=place / name))
        assert package.read_bytes()[4:8] == bytes(4), "gzip's own time"
        with tarfile.open(package) as archive:
            assert {member.mtime for member in archive} == {LONG_AGO}
        found.add(helm_python.digest(package))
    return found


def one(found: list[Object], kind: str, name: str | None = None) -> Object:
    """The only object of a kind (and name)."""
    matching = [each for each in found if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    assert len(matching) == 1, f"{len(matching)} objects are a {kind} {name or ''}"
    return matching[0]


def kinds(found: list[Object]) -> list[str]:
    """The kinds, sorted."""
    return sorted(each["kind"] for each in found)
