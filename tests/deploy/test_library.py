"""The library: a chart that embeds it, on both sides of native sidecars, and what it refuses."""

import json

import helm_python
import pytest
from support import configuration, crds, helm, lint, manifests
from support.paths import CHART, CONSUMER, LIBRARY, ROOT, VERSIONS

#: What the example says exists outside of the release.
EXTERNAL = frozenset({"Secret/legacy-app-doorward", "Secret/redis-tls"})
LABELS = {"app.kubernetes.io/name": "legacy-app", "app.kubernetes.io/instance": "demo"}


@pytest.fixture(scope="session")
def consumer(tmp_path_factory):
    """The example with the library in its charts/."""
    return helm.with_dependencies(CONSUMER, ROOT / "helm", tmp_path_factory.mktemp("consumer"))


def doorward(**more) -> dict:
    """Values of the example's library."""
    return {"doorward": more}


def pod(found) -> manifests.Object:
    """The spec of the application's pods."""
    return helm.one(found, "Deployment")["spec"]["template"]["spec"]


def sidecar(found) -> manifests.Object:
    """The one container doorward, wherever it is."""
    spec = pod(found)
    return [each for each in [*spec.get("initContainers", []), *spec["containers"]] if each["name"] == "doorward"][0]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_consumer_is_sound_on_a_version(consumer, version):
    for given in ({}, {"podMonitor": True}, doorward(redis={"tls": {"existingCASecret": "redis-tls"}})):
        found = helm.render(consumer, given, version)
        assert helm.lint(consumer, given, version) == []
        assert list(manifests.schema_findings(found, version)) == []
        assert lint.findings(found, EXTERNAL) == []


@pytest.mark.parametrize(("version", "native"), [("1.25", False), ("1.28", False), ("1.29", True), ("1.37", True)])
def test_the_sidecar_is_native_where_there_are_native_ones(consumer, version, native):
    spec = pod(helm.render(consumer, {}, version))
    init = [each["name"] for each in spec.get("initContainers", [])]
    plain = [each["name"] for each in spec["containers"]]
    assert (init, plain) == ((["doorward"], ["app"]) if native else ([], ["app", "doorward"]))


@pytest.mark.parametrize(("version", "native"), [("1.29", False), ("1.28", True)])
def test_native_can_be_overridden(consumer, version, native):
    found = helm.render(consumer, doorward(native=native), version)
    assert ("initContainers" in pod(found)) is native


def test_a_native_sidecar_drains_at_deletion_and_a_plain_one_on_sigterm(consumer):
    native, plain = (sidecar(helm.render(consumer, {}, version)) for version in ("1.29", "1.28"))
    assert native.pop("lifecycle") == {"preStop": {"exec": {"command": ["/doorward", "drain"]}}}
    assert native.pop("restartPolicy") == "Always"
    assert native == plain


def test_the_application_outlives_its_endpoint(consumer):
    def sleep(version):
        return pod(helm.render(consumer, {}, version))["containers"][0]["lifecycle"]["preStop"]

    assert sleep("1.29") == {"exec": {"command": ["sleep", "6"]}}
    assert sleep("1.30") == {"sleep": {"seconds": 6}}
    assert pod(helm.render(consumer, {}))["terminationGracePeriodSeconds"] == 25


def test_the_image_is_the_librarys_and_not_the_consumers(consumer):
    image = sidecar(helm.render(consumer, {}))["image"]
    version = helm_python.Chart.load(LIBRARY).metadata["appVersion"]
    assert image == f"ghcr.io/doorward/doorward:{version}"
    assert helm_python.Chart.load(CONSUMER).metadata["appVersion"] != version
    digest = "sha256:" + "a" * 64
    other = helm.render(consumer, doorward(image={"registry": "", "digest": digest}))
    assert sidecar(other)["image"] == f"doorward/doorward@{digest}"
    untagged = helm.render(consumer, doorward(image={"tag": "", "digest": digest}))
    assert sidecar(untagged)["image"] == f"ghcr.io/doorward/doorward@{digest}"


def test_doorward_accepts_the_rendered_configuration(consumer):
    text = helm.one(helm.render(consumer, {}), "ConfigMap")["data"]["config.yaml"]
    assert configuration.warnings(text) == []
    assert configuration.parsed(text)["upstream"]["url"] == "http://127.0.0.1:3000"


def test_authorities_are_files_that_the_configuration_names(consumer):
    tls = {"existingCASecret": "db-tls", "caKey": "tls.crt"}
    found = helm.render(consumer, doorward(directory={"tls": tls}, redis={"tls": {"existingCASecret": "redis-tls"}}))
    config = configuration.parsed(helm.one(found, "ConfigMap")["data"]["config.yaml"])
    assert config["directory"]["ca"] == "/run/secrets/doorward/directory-ca.crt"
    assert config["sessions"]["redis"]["ca"] == "/run/secrets/doorward/redis-ca.crt"
    sources = [volume for volume in pod(found)["volumes"] if volume["name"] == "doorward-secrets"][0]["projected"]
    items = {each["secret"]["name"]: each["secret"].get("items") for each in sources["sources"]}
    assert items == {
        "legacy-app-doorward": None,
        "db-tls": [{"key": "tls.crt", "path": "directory-ca.crt"}],
        "redis-tls": [{"key": "ca.crt", "path": "redis-ca.crt"}],
    }


def test_no_configuration_of_ones_own_is_none(consumer):
    found = helm.render(consumer, doorward(config=None))
    assert "routes" not in configuration.parsed(helm.one(found, "ConfigMap")["data"]["config.yaml"])


def test_requests_come_through_doorward_only(consumer):
    found = helm.render(consumer, {})
    assert helm.one(found, "Service")["spec"]["ports"][0]["targetPort"] == 8080
    spec = helm.one(found, "NetworkPolicy")["spec"]
    assert spec["podSelector"]["matchLabels"] == LABELS
    assert [[port["port"] for port in rule["ports"]] for rule in spec["ingress"]] == [[8080], [9090]]
    assert "from" in spec["ingress"][1]
    closed = helm.one(helm.render(consumer, doorward(networkPolicy={"metricsFrom": []})), "NetworkPolicy")
    assert [[port["port"] for port in rule["ports"]] for rule in closed["spec"]["ingress"]] == [[8080]]


def test_the_pod_monitor_matches_its_definition(consumer):
    found = [each for each in helm.render(consumer, {"podMonitor": True}) if manifests.is_custom(each)]
    assert helm.kinds(found) == ["PodMonitor"]
    assert crds.findings([(manifests.name_of(each), each) for each in found]) == []


def test_hot_reload_replaces_pods_only_for_what_needs_a_restart(consumer):
    def annotations(**more):
        found = helm.render(consumer, doorward(**more))
        return helm.one(found, "Deployment")["spec"]["template"]["metadata"]["annotations"]

    routes = {"routes": [{"path": "/**", "auth": "required"}]}
    assert annotations() == annotations(config=routes)
    assert annotations() != annotations(workers=3)
    rollout = {"reload": {"strategy": "rollout"}}
    assert annotations(**rollout) != annotations(**rollout, config=routes)


def test_one_pod_may_keep_sessions_in_a_file(consumer):
    given = doorward(
        singleReplica=True,
        sessions={"store": ""},
        directory={"url": "", "passwordSecretKey": ""},
        redis={"passwordSecretKey": ""},
        existingSecret="",
    )
    found = helm.render(consumer, given)
    assert lint.findings(found) == []
    assert {"name": "doorward-state", "emptyDir": {}} in pod(found)["volumes"]
    text = helm.one(found, "ConfigMap")["data"]["config.yaml"]
    assert "sessions" not in configuration.parsed(text)
    assert configuration.complaint(text) is None


#: name: values of the library over the example's, words of the refusal.
REFUSED = {
    "the embedded store": (
        {"sessions": {"store": ""}},
        "several pods need a shared session store: set sessions.store to redis://",
    ),
    "a directory each": ({"directory": {"url": ""}}, "several pods need a shared directory: set directory.url"),
    "no token keys": ({"sessions": {"tokenKeys": []}}, "sessions.tokenKeys is empty"),
    "no Secret": (
        {"existingSecret": ""},
        "set existingSecret to a Secret with the keys redis-password, directory-password, token-key",
    ),
    "another listen": (
        {"config": {"listen": "0.0.0.0:1"}},
        "config.listen is the library's: set listenAddress and ports.proxy",
    ),
    "another drain": (
        {"config": {"lifecycle": {"drain_delay": "1m"}}},
        "config.lifecycle.drain_delay is the library's: set lifecycle.drainDelaySeconds",
    ),
    "another grace": (
        {"config": {"lifecycle": {"termination_grace": "1m"}}},
        "config.lifecycle.termination_grace is the library's",
    ),
    "answers to other proxies": (
        {"config": {"forward_auth": {"enabled": True}}},
        "config.forward_auth is not for a sidecar",
    ),
    "no image": ({"image": {"tag": ""}}, "image.tag and image.digest are both empty"),
    "a password in the store's URL": ({"sessions": {"store": "rediss://doorward:x@redis"}}, "/sessions/store"),
    "a password in the directory's URL": ({"directory": {"url": "postgres://doorward:x@db/x"}}, "/directory/url"),
    "a password in the configuration": (
        {"config": {"sessions": {"store": "rediss://doorward:x@redis"}}},
        "config.sessions.store has a password",
    ),
    "a password in the configuration's directory": (
        {"config": {"directory": {"url": "postgres://doorward:x@db/doorward"}}},
        "config.directory.url has a password",
    ),
    "an authority for Redis in clear": (
        {"sessions": {"store": "redis://redis"}, "redis": {"tls": {"existingCASecret": "redis-tls"}}},
        "redis.tls is for TLS",
    ),
    "an authority for a file": (
        {"directory": {"url": "", "perReplica": True, "tls": {"existingCASecret": "db-tls"}}},
        "directory.tls is for PostgreSQL",
    ),
    "a privileged port": ({"ports": {"admin": 90}}, "/ports/admin"),
    "startup that has to succeed twice": ({"probes": {"startup": {"successThreshold": 2}}}, "/probes/startup"),
    "ports that collide": ({"ports": {"proxy": 9090}}, "ports.proxy and ports.admin must differ"),
    "a key that is none": ({"imgae": {}}, "additional properties 'imgae' not allowed"),
    "an upstream of another kind": ({"upstream": {"url": "ftp://x"}}, "/upstream/url"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_to_do(consumer, name):
    more, words = REFUSED[name]
    assert words in helm.refusal(consumer, doorward(**more))


def test_a_strict_schema_has_to_list_the_library(tmp_path):
    strict = helm.with_dependencies(CONSUMER, ROOT / "helm", tmp_path)
    schema = json.loads((strict / "values.schema.json").read_text())
    del schema["properties"]["doorward"]
    (strict / "values.schema.json").write_text(json.dumps(schema))
    assert "additional properties 'doorward' not allowed" in helm.refusal(strict, {})


def test_the_library_works_under_its_own_name(tmp_path):
    renamed = tmp_path / "renamed"
    chart = helm.with_dependencies(CONSUMER, ROOT / "helm", renamed)
    metadata = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(metadata.replace("    alias: doorward\n", ""))
    for name in ("values.yaml", "values.schema.json"):
        text = (chart / name).read_text()
        (chart / name).write_text(
            text.replace("\ndoorward:", "\ndoorward-lib:").replace('"doorward":', '"doorward-lib":')
        )
    assert sidecar(helm.render(chart, {}))["args"][0] == "serve"


def test_the_library_itself_is_tidy():
    assert helm.lint(LIBRARY, {}, "1.33") == []


def test_both_charts_may_be_in_one_release():
    defined = {}
    for chart in (CHART, LIBRARY):
        for template in (chart / "templates").rglob("*.tpl"):
            for line in template.read_text().splitlines():
                if "define " in line:
                    defined.setdefault(line.split('"')[1], set()).add(chart.name)
    assert defined
    assert [name for name, charts in defined.items() if len(charts) > 1] == []


def test_two_packages_have_one_digest(tmp_path):
    assert len(helm.digests(LIBRARY, tmp_path)) == 1
