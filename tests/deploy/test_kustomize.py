"""The components: what is built has the sidecar, or the build must not be used."""

import shutil

import pytest
from support import configuration, helm, kustomize, lint, manifests
from support.paths import DEPLOY

FORMS = {"native": "initContainers", "legacy": "containers"}
VERSIONS = {"native": ("1.29", "1.33", "1.37"), "legacy": ("1.25", "1.29", "1.33", "1.37")}
EXTERNAL = frozenset({"Secret/doorward"})


@pytest.fixture
def overlay(tmp_path):
    """Makes an overlay beside a copy of the components."""
    shutil.copytree(DEPLOY / "kustomize", tmp_path / "kustomize")

    def make(name: str, kustomization: str, **files: str):
        folder = tmp_path / "kustomize" / "examples" / name
        folder.mkdir()
        (folder / "kustomization.yaml").write_text(kustomization)
        for file, text in files.items():
            (folder / f"{file}.yaml").write_text(text)
        return kustomize.build(folder)

    return make


def pods(found) -> dict:
    """The spec of the only workload's pods."""
    return next(lint.pods(found))[1]["spec"]


def names(found, where: str) -> list[str]:
    """Of the containers of a kind."""
    return [each["name"] for each in pods(found).get(where, [])]


@pytest.mark.parametrize("form", FORMS)
def test_the_build_has_the_sidecar(form):
    found = kustomize.build(DEPLOY / "kustomize" / "examples" / form)
    other = ({*FORMS.values()} - {FORMS[form]}).pop()
    assert "doorward" in names(found, FORMS[form])
    assert "doorward" not in names(found, other)
    assert "app" in names(found, "containers")
    sidecar = [each for each in pods(found)[FORMS[form]] if each["name"] == "doorward"][0]
    assert sidecar.get("restartPolicy") == ("Always" if form == "native" else None)
    assert helm.one(found, "Service")["spec"]["ports"][0]["targetPort"] == 8080


@pytest.mark.parametrize("form", FORMS)
def test_the_build_is_sound(form):
    found = kustomize.build(DEPLOY / "kustomize" / "examples" / form)
    for version in VERSIONS[form]:
        assert list(manifests.schema_findings(found, version)) == []
    assert lint.findings(found, EXTERNAL) == []
    assert {each["metadata"]["namespace"] for each in found} == {"apps"}


@pytest.mark.parametrize("form", FORMS)
def test_doorward_accepts_the_example_configuration(form):
    found = kustomize.build(DEPLOY / "kustomize" / "examples" / form)
    assert configuration.warnings(helm.one(found, "ConfigMap", "doorward")["data"]["config.yaml"]) == []


@pytest.mark.parametrize("form", FORMS)
def test_the_network_policy_selects_what_was_patched(form):
    found = kustomize.build(DEPLOY / "kustomize" / "examples" / form)
    labels = next(lint.pods(found))[1]["metadata"]["labels"]
    selector = helm.one(found, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert selector == {"doorward-sidecar": "enabled"}
    assert selector.items() <= labels.items()


STATEFUL = """
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: legacy-app, labels: { doorward-sidecar: enabled } }
spec:
  serviceName: legacy-app
  selector: { matchLabels: { app.kubernetes.io/name: legacy-app } }
  template:
    metadata: { labels: { app.kubernetes.io/name: legacy-app } }
    spec:
      initContainers: [{ name: migrate, image: "app:1" }]
      containers: [{ name: app, image: "app:1" }]
      volumes: [{ name: data, emptyDir: {} }]
"""


@pytest.mark.parametrize(("component", "where"), [("component", "initContainers"), ("component-legacy", "containers")])
def test_other_workloads_get_it_too_and_keep_what_they_have(overlay, component, where):
    found = overlay("stateful", f"resources: [app.yaml]\ncomponents: [../../{component}]\n", app=STATEFUL)
    assert "doorward" in names(found, where)
    assert "migrate" in names(found, "initContainers")
    assert "app" in names(found, "containers")
    volumes = [volume["name"] for volume in pods(found)["volumes"]]
    assert sorted(volumes) == ["data", "doorward-config", "doorward-secrets", "doorward-state"]


def test_a_label_that_the_overlay_adds_comes_too_late(overlay):
    """The trap that kustomization.yaml warns of: the build succeeds, and the application is bare."""
    bare = STATEFUL.replace(", labels: { doorward-sidecar: enabled }", "")
    added = "labels: [{ pairs: { doorward-sidecar: enabled } }]\n"
    found = overlay("late", f"resources: [app.yaml]\ncomponents: [../../component]\n{added}", app=bare)
    assert helm.one(found, "StatefulSet")["metadata"]["labels"]["doorward-sidecar"] == "enabled"
    assert "doorward" not in names(found, "initContainers")


@pytest.mark.parametrize("component", ["component", "component-legacy"])
def test_the_warning_of_the_trap_is_there(component):
    text = (DEPLOY / "kustomize" / component / "kustomization.yaml").read_text()
    assert "nothing is patched, and the application runs unprotected" in text
