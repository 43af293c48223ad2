"""What schemas let pass and a cluster, or an attacker, does not.

`findings` takes all objects of a release or a build, and the names of what is outside of it.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from .manifests import Object, name_of

LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")

#: Fields whose values are enumerations that the published schemas take for any text.
ENUMERATIONS = {
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "pathType": {"Exact", "Prefix", "ImplementationSpecific"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
    "terminationMessagePolicy": {"File", "FallbackToLogsOnError"},
    "externalTrafficPolicy": {"Cluster", "Local"},
    "unhealthyPodEvictionPolicy": {"AlwaysAllow", "IfHealthyBudget"},
    "fsGroupChangePolicy": {"OnRootMismatch", "Always"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
}

#: What volumes restricted pod security allows.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def findings(found: list[Object], external: frozenset[str] = frozenset()) -> list[str]:
    """All that is wrong. `external` has what exists outside, as `Kind/name`."""
    checks = (_names, _enumerations, _pods, _services, _references, _selectors, _routes, _scaling, _monitors, _grace)
    return [finding for check in checks for finding in check(found, external)]


def pods(found: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Each pod and pod template (metadata and spec) with the object that has it."""
    for manifest in found:
        if manifest["kind"] == "Pod":
            yield manifest, manifest
        elif manifest["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            yield manifest, manifest["spec"]["template"]


def containers(pod: Object) -> list[Object]:
    """The pod's containers, those that initialise it included."""
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def _of(found: list[Object], kind: str) -> Iterator[Object]:
    return (manifest for manifest in found if manifest["kind"] == kind)


def _names(found: list[Object], _: frozenset[str]) -> Iterator[str]:
    names = [(manifest["apiVersion"], name_of(manifest)) for manifest in found]
    for _, name in sorted({each for each in names if names.count(each) > 1}):
        yield f"{name} is there twice"
    for manifest in found:
        if not DNS_LABEL.fullmatch(manifest["metadata"]["name"]):
            yield f"{name_of(manifest)}: the name is too long, or not a DNS label"
        for owner in (manifest, *(pod for _, pod in pods([manifest]))):
            for key, value in owner.get("metadata", {}).get("labels", {}).items():
                if not isinstance(value, str) or not LABEL.fullmatch(value):
                    yield f"{name_of(manifest)}: label {key} cannot be {value!r}"


def _enumerations(found: list[Object], _: frozenset[str]) -> Iterator[str]:
    def walk(name: str, value: Any) -> Iterator[str]:
        if isinstance(value, list):
            for each in value:
                yield from walk(name, each)
        if isinstance(value, dict):
            for key, each in value.items():
                if isinstance(each, str) and key in ENUMERATIONS and each not in ENUMERATIONS[key]:
                    yield f"{name}: {key} cannot be {each!r}"
                yield from walk(name, each)

    for manifest in found:
        if "spec" in manifest:
            yield from walk(name_of(manifest), manifest["spec"])


def _pods(found: list[Object], _: frozenset[str]) -> Iterator[str]:
    for manifest, pod in pods(found):
        every = [*_pod(pod), *_volumes(pod), *(said for each in containers(pod) for said in _container(pod, each))]
        yield from (f"{name_of(manifest)}: {finding}" for finding in every)


def _pod(pod: Object) -> Iterator[str]:
    spec = pod["spec"]
    if spec.get("automountServiceAccountToken") is not False:
        yield "mounts a token of the API server"
    if spec.get("enableServiceLinks") is not False:
        yield "puts every Service into the environment"
    for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.get(key):
            yield f"has {key}"
    names = [container["name"] for container in containers(pod)]
    if len(names) != len(set(names)):
        yield "has two containers of one name"
    for container in spec.get("initContainers", []):
        if container.get("restartPolicy") not in (None, "Always"):
            yield f"{container['name']}: restartPolicy can only be Always"
    for container in spec["containers"]:
        if "restartPolicy" in container:
            yield f"{container['name']}: restartPolicy is for init containers"


def _volumes(pod: Object) -> Iterator[str]:
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
    mounted = {mount["name"] for each in containers(pod) for mount in each.get("volumeMounts", [])}
    if len(volumes) != len(pod["spec"].get("volumes", [])):
        yield "has two volumes of one name"
    for name in sorted(mounted - volumes.keys()):
        yield f"mounts {name}, which is no volume"
    for name in sorted(volumes.keys() - mounted):
        yield f"nobody mounts the volume {name}"
    for name, volume in volumes.items():
        for source in volume.keys() - {"name"} - VOLUMES:
            yield f"volume {name}: {source} is not allowed by restricted pod security"


def _container(pod: Object, container: Object) -> Iterator[str]:
    for said in (*_security(pod, container), *_ports(container), *_resources(container), *_contents(container)):
        yield f"{container['name']}: {said}"


def _security(pod: Object, container: Object) -> Iterator[str]:
    own, inherited = container.get("securityContext", {}), pod["spec"].get("securityContext", {})

    def effective(key: str) -> Any:
        return own.get(key, inherited.get(key))

    if effective("runAsNonRoot") is not True or effective("runAsUser") in (None, 0):
        yield "may run as root"
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield "may gain privileges"
    if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
        yield "keeps capabilities"
    if (effective("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "has no seccomp profile"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "may write to its root file system"


def _ports(container: Object) -> Iterator[str]:
    ports = container.get("ports", [])
    names = [port["name"] for port in ports]
    if len(names) != len(set(names)) or len(ports) != len({port["containerPort"] for port in ports}):
        yield "has a port twice"
    for port in ports:
        if not PORT_NAME.fullmatch(port["name"]):
            yield f"a port cannot be called {port['name']!r}"
        if port["containerPort"] < 1024:
            yield f"port {port['containerPort']} is for root"
        if "hostPort" in port:
            yield "opens a port of the node"
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        port = container.get(kind, {}).get("httpGet", {}).get("port")
        if isinstance(port, str) and port not in names:
            yield f"{kind} asks {port!r}, which is no port of it"


def _resources(container: Object) -> Iterator[str]:
    resources = container.get("resources") or {}
    if not {"cpu", "memory"} <= (resources.get("requests") or {}).keys():
        yield "requests no CPU or no memory"
    if "cpu" in (resources.get("limits") or {}):
        yield "has a CPU limit, which throttles"


def _contents(container: Object) -> Iterator[str]:
    variables = [variable["name"] for variable in container.get("env", [])]
    if len(variables) != len(set(variables)):
        yield "has a variable twice"
    mounts = container.get("volumeMounts", [])
    if len(mounts) != len({mount["mountPath"] for mount in mounts}):
        yield "mounts two volumes in one place"
    if any("subPath" in mount for mount in mounts):
        yield "mounts a subPath, which never follows a change"
    name = container["image"].rsplit("/", 1)[-1]
    if "@" not in name and (":" not in name or name.endswith(":latest")):
        yield f"image {container['image']} can be any"


def _services(found: list[Object], _: frozenset[str]) -> Iterator[str]:
    for service in _of(found, "Service"):
        serving = [pod for _, pod in pods(found) if _selects(service["spec"]["selector"], pod)]
        if len(serving) != 1:
            yield f"{name_of(service)} selects {len(serving)} kinds of pods"
        for port in service["spec"]["ports"]:
            target = port.get("targetPort")
            if not isinstance(target, int):
                yield f"{name_of(service)}: targetPort {target!r} must be a number: names fail for native sidecars"
            open_ports = {
                port["containerPort"] for pod in serving for each in containers(pod) for port in each.get("ports", [])
            }
            if isinstance(target, int) and target not in open_ports:
                yield f"{name_of(service)}: no container has port {target}"


def _references(found: list[Object], external: frozenset[str]) -> Iterator[str]:
    there = {name_of(manifest) for manifest in found} | external
    for manifest, pod in pods(found):
        for wanted in sorted(set(_wanted(pod["spec"]))):
            if wanted not in there:
                yield f"{name_of(manifest)} refers to {wanted}, which is not there"


def _wanted(spec: Object) -> Iterator[str]:
    if spec.get("serviceAccountName"):
        yield f"ServiceAccount/{spec['serviceAccountName']}"
    yield from (f"Secret/{secret['name']}" for secret in spec.get("imagePullSecrets", []))
    for volume in spec.get("volumes", []):
        for source in (volume, *volume.get("projected", {}).get("sources", [])):
            if "configMap" in source:
                yield f"ConfigMap/{source['configMap']['name']}"
            if "secret" in source:
                yield f"Secret/{source['secret'].get('secretName', source['secret'].get('name'))}"
        if "persistentVolumeClaim" in volume:
            yield f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}"
    for container in spec.get("initContainers", []) + spec["containers"]:
        for source in container.get("envFrom", []):
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in source:
                    yield f"{kind}/{source[key]['name']}"


def _selectors(found: list[Object], _: frozenset[str]) -> Iterator[str]:
    for manifest, pod in pods(found):
        selector = manifest["spec"].get("selector", {}).get("matchLabels", {})
        if not _selects(selector, pod):
            yield f"{name_of(manifest)}: the selector does not select its own pods"
        if selector.keys() - {"app.kubernetes.io/name", "app.kubernetes.io/instance"}:
            yield f"{name_of(manifest)}: the selector has a label that may change, and selectors never may"
    for kind, where in (
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
        ("PodMonitor", "selector"),
    ):
        for manifest in _of(found, kind):
            if not any(_selects(manifest["spec"][where]["matchLabels"], pod) for _, pod in pods(found)):
                yield f"{name_of(manifest)} selects no pod"


def _selects(selector: dict[str, str], pod: Object) -> bool:
    return selector.items() <= pod.get("metadata", {}).get("labels", {}).items()


def _routes(found: list[Object], _: frozenset[str]) -> Iterator[str]:
    services = {service["metadata"]["name"]: service["spec"]["ports"] for service in _of(found, "Service")}
    for manifest in found:
        for name, port in _backends(manifest):
            if not any(port in (each["port"], each["name"]) for each in services.get(name, [])):
                yield f"{name_of(manifest)}: there is no Service {name} with port {port}"


def _backends(manifest: Object) -> Iterator[tuple[str, int | str]]:
    if manifest["kind"] == "HTTPRoute":
        for rule in manifest["spec"]["rules"]:
            yield from ((backend["name"], backend["port"]) for backend in rule["backendRefs"])
    if manifest["kind"] == "Ingress":
        for rule in manifest["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                yield service["name"], service["port"].get("name") or service["port"].get("number")


def _scaling(found: list[Object], _: frozenset[str]) -> Iterator[str]:
    for scaler in _of(found, "HorizontalPodAutoscaler"):
        name = scaler["spec"]["scaleTargetRef"]["name"]
        targets = [each for each in _of(found, "Deployment") if each["metadata"]["name"] == name]
        if len(targets) != 1:
            yield f"{name_of(scaler)}: there is no Deployment {name}"
        if any("replicas" in each["spec"] for each in targets):
            yield f"{name_of(scaler)}: the Deployment sets replicas, and each upgrade would undo the scaling"


def _monitors(found: list[Object], _: frozenset[str]) -> Iterator[str]:
    for monitor in _of(found, "PodMonitor"):
        selected = [pod for _, pod in pods(found) if _selects(monitor["spec"]["selector"]["matchLabels"], pod)]
        names = {port["name"] for pod in selected for each in containers(pod) for port in each.get("ports", [])}
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if endpoint["port"] not in names:
                yield f"{name_of(monitor)}: no pod has the port {endpoint['port']}"
    for monitor in _of(found, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        selected = [each for each in _of(found, "Service") if _selects(selector, each)]
        names = {port["name"] for service in selected for port in service["spec"]["ports"]}
        if len(selected) != 1 or any(endpoint["port"] not in names for endpoint in monitor["spec"]["endpoints"]):
            yield f"{name_of(monitor)} does not select one Service with its port"


def _grace(found: list[Object], _: frozenset[str]) -> Iterator[str]:
    configurations = [
        yaml.safe_load(each["data"]["config.yaml"]) for each in _of(found, "ConfigMap") if "config.yaml" in each["data"]
    ]
    for lifecycle in (each["lifecycle"] for each in configurations if "lifecycle" in each):
        needed = sum(int(lifecycle[key].removesuffix("s")) for key in ("drain_delay", "drain_timeout")) + 3
        for manifest in _of(found, "Deployment"):
            given = manifest["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
            if lifecycle.get("termination_grace") != f"{given}s":
                yield f"{name_of(manifest)} is killed after {given} s, and Doorward is told otherwise"
            if given <= needed:
                yield f"{name_of(manifest)} is killed after {given} s, and its drain takes up to {needed}"
