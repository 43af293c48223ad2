"""What the charts say of themselves is so."""

import json
import re

import pytest
from support import configuration, helm, manifests, values_table
from support.paths import CHART, CONSUMER, DEPLOY, LIBRARY


@pytest.mark.parametrize("chart", [CHART, LIBRARY], ids=lambda chart: chart.name)
def test_the_table_has_every_value_with_its_default(chart):
    assert values_table.rows(chart / "README.md") == values_table.defaults(chart / "values.yaml")


@pytest.mark.parametrize("chart", [CHART, LIBRARY], ids=lambda chart: chart.name)
def test_every_value_is_in_the_schema_and_nothing_is_free(chart):
    """A schema that lets unknown keys pass at any level lets a misspelt one pass."""
    schema = json.loads((chart / "values.schema.json").read_text())

    def walk(path: str, node: dict) -> list[str]:
        if "$ref" in node:
            node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
        found = [path] if "properties" in node and node.get("additionalProperties") is not False else []
        for key, value in node.get("properties", {}).items():
            found += walk(f"{path}.{key}", value)
        return found

    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert walk("", schema) == []
    top = {key.split(".")[0] for key in values_table.defaults(chart / "values.yaml")}
    assert top | {"global"} == schema["properties"].keys()


def test_the_examples_in_the_readme_render():
    blocks = re.findall(r"```yaml\n(.*?)```", (CHART / "README.md").read_text(), re.S)
    assert len(blocks) == 2
    for block in blocks:
        found = helm.render(CHART, manifests.load(block)[0])
        text = helm.one(found, "ConfigMap")["data"]["config.yaml"]
        assert configuration.complaint(text) is None


def test_the_library_documents_its_templates():
    rows = re.findall(r"(?m)^\| `(doorward\.\w+)`", (LIBRARY / "README.md").read_text())
    text = "".join(file.read_text() for file in (LIBRARY / "templates").glob("*.tpl"))
    defined = set(re.findall(r'define "(doorward\.\w+)"', text))
    assert rows
    assert set(rows) <= defined
    used = "".join(file.read_text() for file in (CONSUMER / "templates").glob("*"))
    assert set(re.findall(r'include "(doorward\.\w+)"', used)) <= set(rows)


def test_the_charts_copies_are_equal_to_their_sources():
    files = CHART / "files"
    copies = {file.relative_to(files): file.read_bytes() for file in files.rglob("*") if file.is_file()}
    sources = {
        file.relative_to(DEPLOY / "prometheus"): file.read_bytes() for file in [DEPLOY / "prometheus" / "rules.yaml"]
    }
    for file in (DEPLOY / "grafana").glob("*.json"):
        sources[(files / "dashboards" / file.name).relative_to(files)] = file.read_bytes()
    lines = (
        "cp deploy/prometheus/rules.yaml helm/doorward/files/",
        "cp deploy/grafana/*.json helm/doorward/files/dashboards/",
    )
    assert copies == sources, f"Helm cannot read outside of a chart, so it has copies. Type: {' && '.join(lines)}"


def test_the_prometheus_rule_is_the_file():
    values = helm.values(CHART / "ci" / "pod-monitor-values.yaml")
    source = manifests.load((DEPLOY / "prometheus" / "rules.yaml").read_text())[0]
    assert helm.one(helm.render(CHART, values), "PrometheusRule")["spec"] == source
    alert = next(rule["alert"] for group in source["groups"] for rule in group["rules"] if "alert" in rule)
    values["metrics"]["prometheusRule"]["disabled"] = [alert]
    rendered = helm.one(helm.render(CHART, values), "PrometheusRule")["spec"]["groups"]
    names = [rule.get("alert") for group in rendered for rule in group["rules"]]
    assert alert not in names
    assert len(names) == sum(len(group["rules"]) for group in source["groups"]) - 1


def test_each_dashboard_is_a_config_map_that_grafana_finds():
    values = helm.values(CHART / "ci" / "pod-monitor-values.yaml")
    found = [each for each in helm.render(CHART, values) if "grafana_dashboard" in each["metadata"].get("labels", {})]
    shown = {name: text for each in found for name, text in each["data"].items()}
    sources = {f"doorward-{file.name}": file.read_text() for file in (DEPLOY / "grafana").glob("*.json")}
    assert {name: text.rstrip() for name, text in shown.items()} == {
        name: text.rstrip() for name, text in sources.items()
    }
