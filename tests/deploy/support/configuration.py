"""Rendered configurations, judged by Doorward itself."""

import base64
import functools
import re
import subprocess
import tempfile
from pathlib import Path

import yaml

from . import paths

SECRETS = "/run/secrets/doorward"
#: Long enough for a token key, and a PEM file for what must be one.
SECRET = "a-secret-of-more-than-thirty-two-bytes-for-tests"


def complaint(text: str) -> str | None:
    """What `doorward check` says against a configuration; None when it accepts it."""
    accepted, said = _check(text)
    return None if accepted else said


def warnings(text: str) -> list[str]:
    """What `doorward check` finds risky in a configuration that it accepts."""
    accepted, said = _check(text)
    assert accepted, said
    return said.splitlines()


@functools.cache
def _check(text: str) -> tuple[bool, str]:
    # Files that a pod would mount are made in a folder, and named there.
    with tempfile.TemporaryDirectory(prefix="doorward-tests-") as folder:
        for path in set(re.findall(rf"{SECRETS}/[-._a-zA-Z0-9]+", text)):
            (Path(folder) / Path(path).name).write_text(SECRET)
        file = Path(folder) / "config.yaml"
        file.write_text(text.replace(SECRETS, folder))
        command = [str(paths.doorward()), "check", "--config", str(file)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, env={})
        return answer.returncode == 0, answer.stderr


def parsed(text: str) -> dict:
    """A configuration as data."""
    return yaml.safe_load(text)


def decoded(text: str) -> str:
    """A value of a Secret's data."""
    return base64.b64decode(text).decode()
