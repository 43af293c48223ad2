"""YAML as Kubernetes reads it: a key twice is an error."""

import functools
import json
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import yaml

Object = dict[str, Any]

#: API groups that Kubernetes itself has no schemas of.
CUSTOM_GROUPS = (
    "monitoring.coreos.com",
    "gateway.networking.k8s.io",
    "gateway.envoyproxy.io",
    "networking.istio.io",
    "security.istio.io",
    "traefik.io",
)


class StrictLoader(yaml.CSafeLoader):
    """Refuses a mapping that has a key twice, of which YAML parsers keep one silently."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"has {sorted(twice)} twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(text: str) -> list[Object]:
    """The objects of a YAML stream."""
    return [document for document in yaml.load_all(text, StrictLoader) if document]


def name_of(manifest: Object) -> str:
    """How a finding names an object."""
    return f"{manifest['kind']}/{manifest.get('metadata', {}).get('name', '?')}"


def is_custom(manifest: Object) -> bool:
    """Whether the object's kind comes from a CustomResourceDefinition."""
    return manifest["apiVersion"].split("/")[0] in CUSTOM_GROUPS


def schema_findings(manifests: list[Object], version: str) -> Iterator[str]:
    """What Kubernetes' own strict schemas of a version say against the objects."""
    for manifest in manifests:
        if not is_custom(manifest):
            finding = _schema_finding(json.dumps(manifest, sort_keys=True), version)
            if finding:
                yield f"{name_of(manifest)} on {version}: {finding}"


@functools.cache
def _schema_finding(manifest: str, version: str) -> str | None:
    try:
        kubernetes_validate.validate(json.loads(manifest), version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return "is not in this version"
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    return None
