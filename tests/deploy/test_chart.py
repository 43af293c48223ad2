"""The chart: every feature on every version, and what each comes to."""

import json
import re

import helm_python
import pytest
from support import configuration, crds, helm, lint, manifests, paths
from support.paths import CHART, VERSIONS

CASES = {path.name.removesuffix("-values.yaml"): helm.values(path) for path in sorted((CHART / "ci").glob("*.yaml"))}

#: What a feature says exists outside of the release.
EXTERNAL = frozenset(
    {
        "Secret/doorward-secrets",
        "Secret/redis-tls",
        "Secret/directory-tls",
        "Secret/registry",
        "Secret/more-environment",
        "Secret/app-tls",
        "ConfigMap/doorward-config",
        "ConfigMap/company-ca",
        "PersistentVolumeClaim/doorward-sessions",
        "ServiceAccount/front-door",
    }
)

#: Features of forwardAuth mode.
FORWARD_AUTH = ("forward-auth", "forward-auth-http")


def case(name: str, version: str = "1.33", **more) -> list[manifests.Object]:
    """The objects of a feature, with top-level values replaced."""
    return helm.render(CHART, CASES[name] | more, version)


def config_of(found: list[manifests.Object]) -> dict:
    """The rendered config.yaml."""
    return configuration.parsed(helm.one(found, "ConfigMap", "demo-doorward")["data"]["config.yaml"])


def container_of(found: list[manifests.Object]) -> manifests.Object:
    """The one container."""
    return helm.one(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_a_feature_is_sound_on_a_version(name, version):
    found = helm.render(CHART, CASES[name], version)
    assert helm.lint(CHART, CASES[name], version) == []
    assert list(manifests.schema_findings(found, version)) == []
    assert lint.findings(found, EXTERNAL) == []


def test_custom_resources_match_their_definitions():
    found = {
        (json.dumps(each, sort_keys=True)): (f"{name}: {manifests.name_of(each)}", each)
        for name in CASES
        for each in case(name)
        if manifests.is_custom(each)
    }
    assert {each["kind"] for _, each in found.values()} == {
        "HTTPRoute",
        "PodMonitor",
        "ServiceMonitor",
        "PrometheusRule",
    }
    assert crds.findings(list(found.values())) == []


@pytest.mark.parametrize("name", [name for name in CASES if name != "existing-config"])
def test_doorward_accepts_the_rendered_configuration(name):
    for found in case(name):
        if "config.yaml" in found.get("data", {}):
            assert configuration.complaint(found["data"]["config.yaml"]) is None


def test_doorward_has_nothing_to_warn_of():
    assert configuration.warnings(helm.one(case("gateway"), "ConfigMap")["data"]["config.yaml"]) == []


def test_values_come_to_configuration():
    config = config_of(case("gateway"))
    secret = {"file": "/run/secrets/doorward/redis-password"}
    assert config["listen"] == "0.0.0.0:8080"
    assert config["upstream"]["url"] == "http://app.default.svc:8080"
    assert config["sessions"]["store"] == "rediss://redis.internal:6379/0"
    assert config["sessions"]["redis"]["password"] == secret
    assert config["sessions"]["token"]["keys"] == [{"id": 1, "secret": {"file": "/run/secrets/doorward/token-key"}}]
    assert config["lifecycle"] == {"drain_delay": "5s", "drain_timeout": "25s", "termination_grace": "45s"}
    assert config["routes"][1] == {"id": "events", "path": "/events/**", "auth": "required", "stream": True}
    ipv6 = config_of(case("ipv6"))
    assert (ipv6["listen"], ipv6["admin"]["listen"]) == ("[::]:8080", "[::]:9090")
    keys = config_of(case("token-key-rotation"))["sessions"]["token"]["keys"]
    assert [key["id"] for key in keys] == [2, 1]
    assert config_of(case("redis-tls"))["sessions"]["redis"]["ca"] == "/run/secrets/doorward/redis-ca.crt"
    assert config_of(case("redis-tls"))["directory"]["ca"] == "/run/secrets/doorward/directory-ca.crt"


def test_the_users_configuration_wins():
    found = case("gateway", config={"sessions": {"ttl": "15m"}, "limits": {"workers": 4}})
    config = config_of(found)
    assert config["sessions"]["ttl"] == "15m"
    assert config["sessions"]["store"] == "rediss://redis.internal:6379/0"
    assert config["limits"] == {"workers": 4}


@pytest.mark.parametrize("name", FORWARD_AUTH)
def test_forward_auth_has_no_application(name):
    found = case(name)
    config = config_of(found)
    grpc = name == "forward-auth"
    assert config["upstream"] == {"url": None}
    assert config["forward_auth"] == {"enabled": True, "grpc": "0.0.0.0:9001" if grpc else None}
    assert config["trusted_proxies"] == CASES[name]["trustedProxies"]
    assert ("grpc" in [port["name"] for port in container_of(found)["ports"]]) is grpc
    ports = helm.one(found, "Service", "demo-doorward")["spec"]["ports"]
    assert [port["name"] for port in ports] == (["http", "grpc"] if grpc else ["http"])


def test_probes_ask_the_admin_port():
    container = container_of(case("gateway"))
    asked = {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
    assert asked == {
        "startup": {
            "httpGet": {"path": "/startupz", "port": "admin"},
            "periodSeconds": 1,
            "timeoutSeconds": 1,
            "failureThreshold": 60,
        },
        "liveness": {
            "httpGet": {"path": "/livez", "port": "admin"},
            "periodSeconds": 10,
            "timeoutSeconds": 2,
            "failureThreshold": 3,
        },
        "readiness": {
            "httpGet": {"path": "/readyz", "port": "admin"},
            "periodSeconds": 5,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        },
    }


def test_the_admin_port_is_in_no_service_that_can_be_exposed():
    for name in CASES:
        for service in (each for each in case(name) if each["kind"] == "Service"):
            ports = [port["name"] for port in service["spec"]["ports"]]
            assert ports == ["admin"] or "admin" not in ports
            assert ports != ["admin"] or service["spec"]["type"] == "ClusterIP"


def test_configuration_and_secrets_are_whole_directories():
    found = case("redis-tls")
    mounts = {mount["mountPath"]: mount["name"] for mount in container_of(found)["volumeMounts"]}
    assert mounts == {"/etc/doorward": "config", "/run/secrets/doorward": "secrets"}
    volumes = helm.one(found, "Deployment")["spec"]["template"]["spec"]["volumes"]
    sources = [volume for volume in volumes if volume["name"] == "secrets"][0]["projected"]["sources"]
    assert sources == [
        {"secret": {"name": "doorward-secrets"}},
        {"secret": {"name": "directory-tls", "items": [{"key": "ca.crt", "path": "directory-ca.crt"}]}},
        {"secret": {"name": "redis-tls", "items": [{"key": "tls.crt", "path": "redis-ca.crt"}]}},
    ]


def test_secrets_come_from_the_user_only():
    assert "Secret" not in helm.kinds([each for name in CASES if name != "secret-values" for each in case(name)])
    data = helm.one(case("secret-values"), "Secret")["data"]
    assert {key: configuration.decoded(value) for key, value in data.items()} == CASES["secret-values"]["secrets"][
        "values"
    ]
    text = (CHART / "templates").rglob("*")
    assert not [path for path in text if path.is_file() and re.search(r"rand[A-Z]|genCA|lookup ", path.read_text())]


def test_rendering_twice_gives_the_same():
    for name in CASES:
        again = helm_python.Chart.load(CHART)
        assert again.render(CASES[name], name="one", namespace="two") == again.render(
            CASES[name], name="one", namespace="two"
        )


def annotations(found) -> dict[str, str]:
    """Of the pods."""
    return helm.one(found, "Deployment")["spec"]["template"]["metadata"]["annotations"]


def test_hot_reload_replaces_pods_only_for_what_needs_a_restart():
    def changed(**more) -> bool:
        return annotations(case("gateway", **more)) != annotations(case("gateway"))

    def configured(**more) -> dict:
        return {**CASES["gateway"]["config"], **more}

    streamed = {"path": "/**", "auth": "required", "stream": True}
    keys = {"store": "rediss://redis.internal:6379/0", "tokenKeys": [{"id": 2, "secretKey": "token-key-2"}]}
    assert "checksum/config" not in annotations(case("gateway"))
    assert not changed(config=configured(routes=[streamed]))
    assert not changed(config=configured(cookie={"name": "other"}))
    assert not changed(sessions=keys)
    assert changed(workers=3)
    assert changed(config=configured(sessions={"ttl": "15m"}))
    assert changed(config=configured(sessions={"token": {"prefix": "other_"}}))
    assert changed(config=configured(routes=[{**streamed, "stream": False}]))


@pytest.mark.parametrize("template", [CHART / "templates" / "_config.tpl", paths.LIBRARY / "templates" / "_pod.tpl"])
def test_what_is_taken_for_hot_is_not_what_the_server_restarts_for(template):
    source = (paths.ROOT / "src" / "config" / "parts.rs").read_text()
    listed = source.split("\nfixed! {")[1].split("\n}\n")[0]
    restarts = set(re.findall(r'"([a-z_]+)', listed))
    hot = set(re.search(r"\$rest := omit \$config (.+) -", template.read_text())[1].replace('"', "").split())
    assert {"listen", "upstream", "limits"} <= restarts
    # Of these two only a part, which is looked at by itself.
    assert hot & restarts == {"routes", "sessions"}


def test_rollout_replaces_pods_for_every_change():
    before = annotations(case("rollout"))
    after = annotations(case("rollout", config={"routes": [{"path": "/**", "auth": "none"}]}))
    assert before["checksum/config"] != after["checksum/config"]


def test_a_new_chart_alone_replaces_no_pods():
    template = helm.one(case("gateway"), "Deployment")["spec"]["template"]
    assert "helm.sh/chart" not in template["metadata"]["labels"]


def test_one_replica_with_a_file_is_never_two():
    for name in ("embedded", "embedded-persistent", "existing-claim"):
        assert helm.one(case(name), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert helm.one(case("gateway"), "Deployment")["spec"]["strategy"]["type"] == "RollingUpdate"


def test_recreating_has_no_numbers_of_a_rolling_update():
    found = case("gateway", strategy={"type": "Recreate"})
    assert helm.one(found, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def test_sessions_in_a_file_have_a_volume():
    def state(name):
        volumes = helm.one(case(name), "Deployment")["spec"]["template"]["spec"]["volumes"]
        return [
            {key: value for key, value in volume.items() if key != "name"}
            for volume in volumes
            if volume["name"] == "state"
        ]

    assert state("embedded") == state("sentinel") == [{"emptyDir": {}}]
    assert state("embedded-persistent") == [{"persistentVolumeClaim": {"claimName": "demo-doorward"}}]
    assert state("existing-claim") == [{"persistentVolumeClaim": {"claimName": "doorward-sessions"}}]
    assert state("gateway") == []
    assert "PersistentVolumeClaim" not in helm.kinds(case("existing-claim"))
    claim = helm.one(case("embedded-persistent"), "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_budget_needs_two_pods():
    assert "PodDisruptionBudget" in helm.kinds(case("gateway"))
    assert "PodDisruptionBudget" not in helm.kinds(case("gateway", replicaCount=1))
    scaling = CASES["autoscaling"]["autoscaling"]
    assert "PodDisruptionBudget" in helm.kinds(case("autoscaling", replicaCount=1))
    assert "PodDisruptionBudget" not in helm.kinds(case("autoscaling", autoscaling=scaling | {"minReplicas": 1}))
    policy = {
        version: helm.one(case("gateway", version), "PodDisruptionBudget")["spec"].get("unhealthyPodEvictionPolicy")
        for version in VERSIONS
    }
    assert policy == {"1.25": None, "1.29": "AlwaysAllow", "1.33": "AlwaysAllow", "1.37": "AlwaysAllow"}


def test_autoscaling_owns_the_number_of_replicas():
    found = case("autoscaling")
    assert "replicas" not in helm.one(found, "Deployment")["spec"]
    spec = helm.one(found, "HorizontalPodAutoscaler")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"], len(spec["metrics"])) == (3, 12, 2)
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300


def test_replicas_spread():
    def spread(name, **more):
        spec = helm.one(case(name, **more), "Deployment")["spec"]["template"]["spec"]
        return [(each["topologyKey"], each["whenUnsatisfiable"]) for each in spec.get("topologySpreadConstraints", [])]

    assert spread("gateway") == [
        ("topology.kubernetes.io/zone", "ScheduleAnyway"),
        ("kubernetes.io/hostname", "ScheduleAnyway"),
    ]
    assert spread("placement") == [("topology.kubernetes.io/zone", "DoNotSchedule")]
    assert spread("embedded") == spread("gateway", topologySpread={"enabled": False}) == []


def test_the_network_policy_is_on_and_closes_the_admin_port():
    spec = helm.one(case("gateway"), "NetworkPolicy")["spec"]
    proxy, admin = spec["ingress"]
    assert spec["policyTypes"] == ["Ingress"]
    assert ([port["port"] for port in proxy["ports"]], proxy.get("from")) == ([8080], None)
    assert [port["port"] for port in admin["ports"]] == [9090]
    labels = {"app.kubernetes.io/name": "doorward-test", "app.kubernetes.io/instance": "demo"}
    assert admin["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert "NetworkPolicy" not in helm.kinds(case("gateway", networkPolicy={"enabled": False}))


def test_a_network_policy_with_egress_allows_names_to_be_resolved():
    spec = helm.one(case("network-policy"), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert {(port["port"], port["protocol"]) for port in spec["egress"][0]["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert [[port["port"] for port in rule["ports"]] for rule in spec["egress"][1:]] == [[6379], [5432], [8080], [443]]
    assert spec["ingress"][0]["from"] == CASES["network-policy"]["networkPolicy"]["ingressFrom"]


def test_helm_test_probes_readiness_past_the_network_policy():
    found = case("gateway")
    pod = helm.one(found, "Pod")
    url = "http://demo-doorward-admin.apps.svc:9090/readyz"
    assert pod["spec"]["containers"][0]["args"] == ["probe", url]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    allowed = helm.one(found, "NetworkPolicy")["spec"]["ingress"][1]["from"][0]["podSelector"]["matchLabels"]
    assert allowed.items() <= pod["metadata"]["labels"].items()


def test_a_digest_wins_over_a_tag():
    digest = CASES["digest"]["image"]["digest"]
    assert container_of(case("digest"))["image"] == f"registry.example.com:5000/platform/doorward@{digest}"
    assert container_of(case("gateway"))["image"] == "ghcr.io/doorward/doorward:0.1.0"


def test_nulls_take_defaults_away():
    found = case("nulls")
    assert container_of(found)["resources"] == {"requests": {"cpu": "100m", "memory": "64Mi"}}


def test_extra_objects_are_templates():
    found = case("extras")
    assert helm.one(found, "ConfigMap", "demo-more")["metadata"]["namespace"] == "apps"
    assert helm.one(found, "ConfigMap", "demo-text")["data"] == {"greeting": "hello"}


def test_long_names_stay_valid():
    long = "a-release-name-that-is-exactly-fifty-three-characters"
    found = case("pod-monitor", fullnameOverride=f"{long}-and-more-and-more")
    assert lint.findings(found, EXTERNAL) == []


def test_notes_say_where_and_warn():
    def notes(name, **more):
        return helm.render_text(CHART, CASES[name] | more, "1.33")["doorward/templates/NOTES.txt"]

    assert "http://demo-doorward.apps.svc:8080" in notes("gateway")
    assert "WARNING" not in notes("gateway")
    assert "/_doorward/verify" in notes("forward-auth")
    assert "sessions are in an emptyDir" in notes("embedded")
    for exposed in ("gateway-api", "ingress"):
        assert "WARNING: trustedProxies is empty" in notes(exposed)
        assert "WARNING" not in notes(exposed, trustedProxies=["10.20.30.0/24"])
        assert "WARNING" not in notes(exposed, config={"trusted_proxies": ["10.20.30.0/24"]})
    other = notes("forward-auth", config={"trusted_proxies": ["10.20.30.0/24"]})
    assert "asked by proxies in:  10.20.30.0/24\n" in other
    assert "trusted_proxies of mine\n" in notes("forward-auth", existingConfigMap="mine")
    assert "secrets.values is kept in the release" in notes("secret-values")


def test_versions_agree():
    version = re.search(r'(?m)^version = "(.+)"', (paths.ROOT / "Cargo.toml").read_text())[1]
    chart, library = helm_python.Chart.load(CHART), helm_python.Chart.load(paths.LIBRARY)
    assert chart.metadata["appVersion"] == library.metadata["appVersion"] == version
    assert library.values["image"]["tag"] == version
    assert f"doorward:{version}" in chart.metadata["annotations"]["artifacthub.io/images"]


def test_two_packages_have_one_digest(tmp_path):
    assert len(helm.digests(CHART, tmp_path)) == 1


def test_the_package_has_no_cases_of_tests(tmp_path):
    archive = helm_python.package(CHART, destination=tmp_path)
    names = {each["name"] for each in helm_python.Chart.load(archive).files}
    assert not [name for name in names if name.startswith("ci/")]
    assert "README.md" in names
