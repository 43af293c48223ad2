"""The table of values in a chart's README.md, and what values.yaml says it must be."""

import json
import re
from pathlib import Path

import yaml

ROW = re.compile(r"(?m)^\| `([\w.]+)` \| `(.*?)` \| (.*?) \|$")


def defaults(path: Path) -> dict[str, str]:
    """Each value by its path, as JSON; a mapping on one line is one value."""
    found: dict[str, str] = {}
    loader = yaml.SafeLoader(path.read_text())

    def walk(prefix: str, node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
            for key, value in node.value:
                walk(f"{prefix}.{key.value}" if prefix else key.value, value)
        else:
            found[prefix] = shown(loader.construct_object(node, deep=True))

    walk("", loader.get_single_node())
    return found


def shown(value: object) -> str:
    """How a table shows a value."""
    return json.dumps(value).replace("|", "\\|")


def rows(path: Path) -> dict[str, str]:
    """What a README says of each value."""
    text = path.read_text()
    found = ROW.findall(text)
    assert len({key for key, _, _ in found}) == len(found), "a value is in the table twice"
    return {key: default for key, default, _ in found}
