"""Where things are."""

import hashlib
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "doorward"
LIBRARY = ROOT / "helm" / "doorward-lib"
CONSUMER = ROOT / "helm" / "examples" / "legacy-app"
DEPLOY = ROOT / "deploy"

#: The versions of Kubernetes that every manifest is rendered for and judged by.
VERSIONS = ("1.25", "1.29", "1.33", "1.37")


def cache(name: str) -> Path:
    """A folder that outlives the run and is nobody else's, as what is in it is run."""
    answer = subprocess.run([ROOT / "scripts" / "cache.sh"], capture_output=True, text=True, check=True)
    return Path(answer.stdout.strip()) / name


def digest(*words: str) -> str:
    """A short name for what the words say."""
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]


def doorward() -> Path:
    """The binary under test."""
    binary = Path(os.environ.get("DOORWARD_BIN") or ROOT / "target" / "debug" / "doorward")
    assert binary.is_file(), f"{binary} is not there; type: cargo build (or set DOORWARD_BIN)"
    return binary
