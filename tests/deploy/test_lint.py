"""The lint finds what it is there for: each planted mistake, and nothing without one."""

import copy

import pytest
from support import crds, helm, lint, manifests
from support.paths import CHART

EXTERNAL = frozenset({"Secret/doorward-secrets"})
VALUES = {
    "upstream": {"url": "http://app:8080"},
    "sessions": {"store": "redis://redis:6379/0"},
    "directory": {"perReplica": True},
    "secrets": {"existingSecret": "doorward-secrets"},
    "autoscaling": {"enabled": True},
    "networkPolicy": {"metricsFrom": [{"podSelector": {}}]},
    "metrics": {"podMonitor": {"enabled": True}},
    "ingress": {"enabled": True, "hosts": [{"host": "x", "paths": [{"path": "/", "pathType": "Prefix"}]}]},
    "gatewayApi": {"enabled": True, "parentRefs": [{"name": "public"}]},
}


def of(found, kind, name=None):
    """An object's spec."""
    return helm.one(found, kind, name)["spec"]


def pod(found):
    """The Deployment's pods."""
    return of(found, "Deployment")["template"]["spec"]


def container(found):
    """Their container."""
    return pod(found)["containers"][0]


#: name: what to do to the objects, words of the finding.
MISTAKES = {
    "a long name": (lambda f: helm.one(f, "Deployment")["metadata"].update(name="x" * 64), "the name is too long"),
    "a name twice": (lambda f: f.append(copy.deepcopy(helm.one(f, "NetworkPolicy"))), "is there twice"),
    "a long label": (
        lambda f: helm.one(f, "Deployment")["metadata"]["labels"].update(team="x" * 64),
        "label team cannot",
    ),
    "a protocol that is none": (
        lambda f: container(f)["ports"][0].update(protocol="HTTP"),
        "protocol cannot be 'HTTP'",
    ),
    "a policy that is none": (
        lambda f: container(f).update(imagePullPolicy="Often"),
        "imagePullPolicy cannot be 'Often'",
    ),
    "a token": (lambda f: pod(f).update(automountServiceAccountToken=True), "mounts a token"),
    "service links": (lambda f: pod(f).pop("enableServiceLinks"), "every Service into the environment"),
    "the host's network": (lambda f: pod(f).update(hostNetwork=True), "has hostNetwork"),
    "a restartPolicy for no sidecar": (lambda f: container(f).update(restartPolicy="Always"), "is for init containers"),
    "a restartPolicy that is none": (
        lambda f: pod(f).update(initContainers=[{**container(f), "name": "a", "restartPolicy": "Never"}]),
        "can only be Always",
    ),
    "an unsafe init container": (
        lambda f: pod(f).update(initContainers=[{"name": "a", "image": "a:1"}]),
        "a: may gain privileges",
    ),
    "two containers of one name": (lambda f: pod(f)["containers"].append(container(f)), "two containers of one name"),
    "a mount of no volume": (
        lambda f: container(f)["volumeMounts"].append({"name": "no", "mountPath": "/no"}),
        "mounts no, which is no volume",
    ),
    "a volume of nobody": (
        lambda f: pod(f)["volumes"].append({"name": "no", "emptyDir": {}}),
        "nobody mounts the volume no",
    ),
    "a host path": (lambda f: pod(f)["volumes"][0].update(hostPath={"path": "/"}), "hostPath is not allowed"),
    "two volumes in one place": (
        lambda f: container(f)["volumeMounts"].append(container(f)["volumeMounts"][0]),
        "two volumes in one place",
    ),
    "a subPath": (lambda f: container(f)["volumeMounts"][0].update(subPath="config.yaml"), "mounts a subPath"),
    "root": (lambda f: container(f)["securityContext"].update(runAsUser=0), "may run as root"),
    "privileges": (
        lambda f: container(f)["securityContext"].update(allowPrivilegeEscalation=True),
        "may gain privileges",
    ),
    "capabilities": (
        lambda f: container(f)["securityContext"].update(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}),
        "keeps capab",
    ),
    "no seccomp": (
        lambda f: [each.pop("seccompProfile") for each in (container(f)["securityContext"], pod(f)["securityContext"])],
        "has no seccomp profile",
    ),
    "a root to write to": (
        lambda f: container(f)["securityContext"].pop("readOnlyRootFilesystem"),
        "may write to its root",
    ),
    "a port twice": (lambda f: container(f)["ports"].append(container(f)["ports"][0]), "has a port twice"),
    "a port's long name": (
        lambda f: container(f)["ports"][0].update(name="a-name-that-is-too-long"),
        "a port cannot be called",
    ),
    "a port for root": (lambda f: container(f)["ports"][0].update(containerPort=80), "port 80 is for root"),
    "a port of the node": (lambda f: container(f)["ports"][0].update(hostPort=8080), "opens a port of the node"),
    "a probe of no port": (
        lambda f: container(f)["livenessProbe"]["httpGet"].update(port="metrics"),
        "asks 'metrics', which is no port",
    ),
    "no requests": (lambda f: container(f).pop("resources"), "requests no CPU or no memory"),
    "a CPU limit": (lambda f: container(f)["resources"]["limits"].update(cpu=1), "has a CPU limit"),
    "a variable twice": (lambda f: container(f).update(env=[{"name": "A"}, {"name": "A"}]), "has a variable twice"),
    "an image that moves": (lambda f: container(f).update(image="doorward:latest"), "can be any"),
    "an image without a tag": (lambda f: container(f).update(image="host:5000/doorward"), "can be any"),
    "a named targetPort": (
        lambda f: of(f, "Service", "demo-doorward")["ports"][0].update(targetPort="http"),
        "must be a number",
    ),
    "a targetPort of nobody": (
        lambda f: of(f, "Service", "demo-doorward")["ports"][0].update(targetPort=1234),
        "no container has port 1234",
    ),
    "a Service of nobody": (
        lambda f: of(f, "Service", "demo-doorward")["selector"].update(a="b"),
        "selects 0 kinds of pods",
    ),
    "a Service of the test's pod too": (
        lambda f: helm.one(f, "Pod")["metadata"]["labels"].update({"app.kubernetes.io/name": "doorward"}),
        "selects 2 kinds of pods",
    ),
    "a missing ConfigMap": (
        lambda f: f.remove(helm.one(f, "ConfigMap")),
        "refers to ConfigMap/demo-doorward, which is not",
    ),
    "a missing Secret": (
        lambda f: pod(f)["volumes"].append({"name": "x", "secret": {"secretName": "other"}}),
        "refers to Secret/other",
    ),
    "a missing account": (lambda f: f.remove(helm.one(f, "ServiceAccount")), "refers to ServiceAccount/demo-doorward"),
    "a missing environment": (
        lambda f: container(f).update(envFrom=[{"configMapRef": {"name": "other"}}]),
        "refers to ConfigMap/other",
    ),
    "a missing claim": (
        lambda f: pod(f)["volumes"].append({"name": "x", "persistentVolumeClaim": {"claimName": "other"}}),
        "refers to PersistentVolumeClaim/other",
    ),
    "a selector of other pods": (
        lambda f: of(f, "Deployment")["selector"]["matchLabels"].update({"app.kubernetes.io/name": "x"}),
        "does not select its own pods",
    ),
    "a selector that will change": (
        lambda f: of(f, "Deployment")["selector"]["matchLabels"].update({"app.kubernetes.io/version": "1"}),
        "has a label that may change",
    ),
    "a budget of nobody": (
        lambda f: of(f, "PodDisruptionBudget")["selector"]["matchLabels"].update(a="b"),
        "PodDisruptionBudget/demo-doorward selects no",
    ),
    "a policy of nobody": (
        lambda f: of(f, "NetworkPolicy")["podSelector"]["matchLabels"].update(a="b"),
        "NetworkPolicy/demo-doorward selects no",
    ),
    "a monitor of no port": (
        lambda f: of(f, "PodMonitor")["podMetricsEndpoints"][0].update(port="metrics"),
        "no pod has the port metrics",
    ),
    "a route to no Service": (
        lambda f: of(f, "HTTPRoute")["rules"][0]["backendRefs"][0].update(port=81),
        "no Service demo-doorward with port 81",
    ),
    "an Ingress to no Service": (
        lambda f: of(f, "Ingress")["rules"][0]["http"]["paths"][0]["backend"]["service"].update(name="x"),
        "there is no Service x",
    ),
    "replicas that scaling owns": (
        lambda f: of(f, "Deployment").update(replicas=2),
        "each upgrade would undo the scaling",
    ),
    "a drain that is cut short": (
        lambda f: pod(f).update(terminationGracePeriodSeconds=33),
        "is killed after 33 s, and its drain takes up to 33",
    ),
    "scaling of nothing": (
        lambda f: of(f, "HorizontalPodAutoscaler")["scaleTargetRef"].update(name="x"),
        "there is no Deployment x",
    ),
}


def test_without_a_mistake_there_is_no_finding():
    assert lint.findings(helm.render(CHART, VALUES), EXTERNAL) == []


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(name):
    found = copy.deepcopy(helm.render(CHART, VALUES))
    plant, words = MISTAKES[name]
    plant(found)
    findings = lint.findings(found, EXTERNAL)
    assert any(words in finding for finding in findings), findings


def test_a_service_monitor_without_its_service_is_found():
    values = {**VALUES, "metrics": {"serviceMonitor": {"enabled": True}}}
    found = copy.deepcopy(helm.render(CHART, values))
    assert lint.findings(found, EXTERNAL) == []
    of(found, "ServiceMonitor")["endpoints"][0]["port"] = "http"
    assert lint.findings(found, EXTERNAL) == ["ServiceMonitor/demo-doorward does not select one Service with its port"]


def test_a_key_twice_is_found():
    with pytest.raises(Exception, match=r"has \['a'\] twice"):
        manifests.load("a: 1\na: 2\n")


def test_a_field_that_is_none_is_found():
    found = copy.deepcopy(helm.render(CHART, VALUES))
    container(found)["imagePullPolice"] = "Always"
    assert "imagePullPolice" in " ".join(manifests.schema_findings(found, "1.33"))


def monitor(**endpoint):
    """A PodMonitor with something in its endpoint."""
    spec = {"selector": {"matchLabels": {"a": "b"}}, "podMetricsEndpoints": [{"port": "admin", **endpoint}]}
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {"name": "x"}, "spec": spec}


def test_a_custom_resource_that_is_wrong_is_found():
    planted = {
        "good": (monitor(interval="15s"), None),
        "pattern": (monitor(interval="15x"), "interval must match pattern"),
        "type": (monitor(port=9090), "must be string"),
        "field": (monitor(intervall="15s"), "'\"intervall\"' does not exist in type"),
        "missing": ({**monitor(), "spec": {"podMetricsEndpoints": []}}, "Property '\"selector\"' is missing"),
        "kind": ({**monitor(), "apiVersion": "example.com/v1"}, "there is no schema of example.com/v1 PodMonitor"),
    }
    said = crds.findings([(name, each) for name, (each, _) in planted.items()])
    for name, (_, words) in planted.items():
        own = [finding for finding in said if finding.startswith(f"{name}: ")]
        assert own == [] if words is None else any(words in finding for finding in own), (name, said)
