"""What is copied or applied as it is, and that all forms of the sidecar are one."""

import re
import subprocess
import sys

import pytest
import yaml
from support import configuration, crds, helm, kustomize, lint, manifests
from support.paths import CHART, CONSUMER, DEPLOY, ROOT

SIDECAR = DEPLOY / "sidecar.yaml"


def expression() -> dict:
    """What the admission policy adds, its CEL literals read as data."""
    policy = manifests.load((DEPLOY / "admission" / "inject.yaml").read_text())[0]
    cel = policy["spec"]["mutations"][0]["jsonPatch"]["expression"]
    literals = re.sub(r"(Object(\.\w+)+|JSONPatch)\{", "{", cel.rsplit("+ [", 1)[1])
    added = [(patch["path"], patch["value"]) for patch in yaml.safe_load(f"[{literals}")]
    assert [path for path, _ in added] == ["/spec/volumes/-"] * 3 + ["/spec/initContainers/0"]
    return {"volumes": [value for _, value in added[:3]], "container": added[3][1]}


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The library's own container with files for the store, native and plain."""
    chart = helm.with_dependencies(CONSUMER, ROOT / "helm", tmp_path_factory.mktemp("library"))
    given = {"doorward": {"directory": {"url": "", "passwordSecretKey": "", "perReplica": True}}}

    def container(version: str, where: str) -> manifests.Object:
        spec = helm.one(helm.render(chart, given, version), "Deployment")["spec"]["template"]["spec"]
        return [each for each in spec[where] if each["name"] == "doorward"][0]

    return {"native": container("1.33", "initContainers"), "plain": container("1.28", "containers")}


def sidecar_of(found: list[manifests.Object], where: str) -> manifests.Object:
    """The container doorward of the only workload."""
    return [each for each in next(lint.pods(found))[1]["spec"][where] if each["name"] == "doorward"][0]


def test_every_form_is_the_librarys_container(library):
    examples = DEPLOY / "kustomize" / "examples"
    assert sidecar_of(kustomize.build(examples / "native"), "initContainers") == library["native"]
    assert sidecar_of(kustomize.build(examples / "legacy"), "containers") == library["plain"]
    assert sidecar_of(manifests.load(SIDECAR.read_text()), "initContainers") == library["native"]
    assert expression()["container"] == library["native"]


def test_every_form_has_the_same_volumes():
    copied = next(lint.pods(manifests.load(SIDECAR.read_text())))[1]["spec"]["volumes"]
    built = next(lint.pods(kustomize.build(DEPLOY / "kustomize" / "examples" / "native")))[1]["spec"]["volumes"]
    assert copied == built == expression()["volumes"]


def test_pods_that_have_the_sidecar_in_either_form_are_left_alone():
    """An API server alone evaluates it; what it asks of is held here."""
    policy = manifests.load((DEPLOY / "admission" / "inject.yaml").read_text())[0]
    (condition,) = policy["spec"]["matchConditions"]
    asked = re.findall(r'(!?)object\.spec\.(\w+)\.exists\(c, c\.name == "doorward"\)', condition["expression"])
    assert asked == [("!", "initContainers"), ("!", "containers")]


def test_a_job_is_a_release_where_there_is_one():
    """Of the relabelings that set the job the last one that matches wins."""
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "scrape.yaml").read_text())["scrape_configs"][0]
    jobs = [rule for rule in scrape["relabel_configs"] if rule.get("target_label") == "job"]
    label = "__meta_kubernetes_pod_label_app_kubernetes_io"
    assert [rule["source_labels"] for rule in jobs] == [[f"{label}_name"], [f"{label}_instance"]]
    assert {rule["regex"] for rule in jobs} == {"(.+)"}


def test_the_snippet_is_whole_and_sound():
    found = manifests.load(SIDECAR.read_text())
    assert helm.kinds(found) == ["ConfigMap", "Deployment", "NetworkPolicy", "Service"]
    for version in ("1.29", "1.33", "1.37"):
        assert list(manifests.schema_findings(found, version)) == []
    assert lint.findings(found, frozenset({"Secret/doorward"})) == []
    assert configuration.warnings(helm.one(found, "ConfigMap")["data"]["config.yaml"]) == []


@pytest.mark.parametrize(
    ("name", "versions", "absent"), [("inject", ("1.36", "1.37"), "1.35"), ("require", ("1.30", "1.37"), "1.29")]
)
def test_admission_policies_match_their_schemas(name, versions, absent):
    found = manifests.load((DEPLOY / "admission" / f"{name}.yaml").read_text())
    for version in versions:
        assert list(manifests.schema_findings(found, version)) == []
    assert all("is not in this version" in said for said in manifests.schema_findings(found, absent))
    policy, binding = found
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert policy["spec"]["failurePolicy"] == "Fail"


def test_what_cannot_be_verified_is_said():
    comment = " ".join(re.findall(r"(?m)^# (.+)$", (DEPLOY / "admission" / "inject.yaml").read_text()))
    assert "whether an API server accepts the CEL expressions" in comment
    said = (CHART / "README.md").read_text().split("## What is not verified\n")[1]
    assert said.split("\n## ")[0].strip()


#: What the packages of schemas do not know yet: a filter of the experimental channel, a field of Envoy Gateway 1.8.
NEWER = (
    r"gateway-api: HTTPRoute/\w+: data/spec/rules/\d/filters/\d/type must be equal to one of the allowed values",
    r"envoy-gateway: SecurityPolicy/\w+: Object literal may only .+ '\"statusOnError\"' does not exist .+",
)


def test_examples_match_their_schemas():
    custom = []
    for file in sorted((DEPLOY / "examples").rglob("*.yaml")):
        if re.search(r"(?m)^apiVersion: \S+$", file.read_text()):
            found = manifests.load(file.read_text())
            assert list(manifests.schema_findings(found, "1.37")) == [], file
            custom += [
                (f"{file.parent.name}: {manifests.name_of(each)}", each) for each in found if manifests.is_custom(each)
            ]
    findings = crds.findings(custom)
    assert [said for said in findings if not any(re.fullmatch(known, said) for known in NEWER)] == []
    unneeded = [known for known in NEWER if not any(re.fullmatch(known, said) for said in findings)]
    assert unneeded == [], "the packages of schemas know it by now"


def test_examples_ask_at_the_ports_of_the_charts_service():
    """A release called doorward is what the examples ask."""
    values = helm.values(CHART / "ci" / "forward-auth-values.yaml") | {"fullnameOverride": "doorward"}
    service = helm.one(helm.render(CHART, values), "Service", "doorward")
    ports = {port["port"] for port in service["spec"]["ports"]}
    assert ports == {8080, 9001}
    for file in sorted((DEPLOY / "examples").rglob("*.yaml")):
        asked = re.findall(r"\{ name: doorward, port: (\d+) \}", file.read_text())
        assert {int(port) for port in asked} <= ports, file


def test_yaml_is_tidy():
    rules = (
        "{extends: relaxed, rules: {line-length: disable, key-duplicates: enable, octal-values: disable, "
        "trailing-spaces: enable, new-line-at-end-of-file: enable, truthy: {check-keys: false}}}"
    )
    files = [
        file
        for folder in ("deploy", "helm", "conf")
        for file in (ROOT / folder).rglob("*.y*ml")
        if not {"templates", "charts"} & {*file.relative_to(ROOT).parts}
    ]
    answer = subprocess.run(
        [sys.executable, "-m", "yamllint", "--strict", "-d", rules, *files], capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stdout


def test_rendered_yaml_is_tidy(tmp_path):
    rules = (
        "{rules: {key-duplicates: enable, indentation: {indent-sequences: whatever}, empty-values: enable, "
        "trailing-spaces: enable, octal-values: disable}}"
    )
    for case in sorted((CHART / "ci").glob("*.yaml")):
        for name, text in helm.render_text(CHART, helm.values(case), "1.33").items():
            if name.endswith(".yaml") and text.strip():
                (tmp_path / f"{case.stem}-{name.replace('/', '-')}").write_text(text.strip("\n") + "\n")
    answer = subprocess.run(
        [sys.executable, "-m", "yamllint", "--strict", "-d", rules, tmp_path], capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stdout
