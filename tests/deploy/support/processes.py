"""Ports, and waiting for what a process does."""

import socket
import subprocess
import time
from collections.abc import Callable


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(
    condition: Callable[[], bool], what: str, process: subprocess.Popen, said: Callable[[], str] = lambda: ""
) -> None:
    """Waits for a condition, as long as the process lives, for at most a minute; `said` is what it complained of."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, f"{what}: ended with {process.returncode}: {said()}"
        assert time.monotonic() < deadline, f"{what}: not within a minute"
        time.sleep(0.02)
