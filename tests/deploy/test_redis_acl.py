"""The rights in Redis: the file loads in a real server, and says what the store is tested with."""

import hashlib
import re
import shutil
import socket
import subprocess
import time

import pytest
from support.paths import DEPLOY, ROOT

FILE = DEPLOY / "redis-acl.conf"
PLACEHOLDER = "SHA256_OF_THE_PASSWORD"


def rule(text: str) -> set[str]:
    """The words of the user's rule that are about rights."""
    return {word for word in text.split() if word[0] in "~&+-"}


def test_it_is_the_rule_that_the_store_is_tested_with():
    source = (ROOT / "src" / "store" / "redis" / "tests" / "topology.rs").read_text()
    tested = re.search(r'const ACL: &str =\s*"(.+?)";', source, re.S)[1].replace("\\\n", " ")
    shipped = re.search(r"(?m)^user doorward on #\S+ (.+)$", FILE.read_text())[1]
    assert rule(shipped) == rule(tested)
    assert len(rule(shipped)) > 20


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "conf/gateway.yaml",
        "deploy/sidecar.yaml",
        "deploy/kustomize/examples/native/config.yaml",
        "deploy/kustomize/examples/legacy/config.yaml",
        "docs/operations.md",
        "helm/doorward/README.md",
        "helm/examples/legacy-app/values.yaml",
    ],
)
def test_samples_name_the_user_that_the_rights_are_for(path):
    user = re.search(r"(?m)^user (\S+) on ", FILE.read_text())[1]
    stores = re.findall(r"(?m)^\s*store: [\"']?(rediss?\S*://[^\s\"']+)", (ROOT / path).read_text())
    assert stores
    for store in stores:
        assert re.match(r"rediss?(\+\w+)?://" + user + "@[^@:]+:6379(/|$)", store), store


def start(folder, text: str) -> subprocess.Popen:
    """A real server with the file included, on a socket in a folder."""
    assert shutil.which("redis-server"), "redis-server is not there; type: apt-get install redis-server"
    (folder / "acl.conf").write_text(text)
    settings = f'port 0\nunixsocket {folder}/socket\nsave ""\ndir {folder}\ninclude {folder}/acl.conf\n'
    (folder / "redis.conf").write_text(settings)
    command = ["redis-server", folder / "redis.conf"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ask(folder, *commands: str) -> list[str]:
    """The first lines of the answers to inline commands."""
    with socket.socket(socket.AF_UNIX) as connection:
        deadline = time.monotonic() + 30
        while connection.connect_ex(str(folder / "socket")):
            assert time.monotonic() < deadline, "redis-server does not answer"
        answers = connection.makefile("rb")
        said = []
        for command in commands:
            connection.sendall(f"{command}\r\n".encode())
            said.append(answers.readline().decode().strip())
        return said


@pytest.fixture
def server(tmp_path):
    """A server that has the user doorward with the password hunter2."""
    digest = hashlib.sha256(b"hunter2").hexdigest()
    process = start(tmp_path, FILE.read_text().replace(PLACEHOLDER, digest))
    yield tmp_path
    process.kill()
    process.communicate()


def test_a_server_takes_it_and_the_user_has_no_more(server):
    said = ask(
        server,
        "AUTH doorward hunter2",
        "PING",
        "SET dw:a b",
        "ZCARD dw:b",
        "SET other b",
        "FLUSHALL",
        "KEYS *",
        "PUBLISH other x",
        "CONFIG GET *",
        "ACL LIST",
    )
    assert said[:4] == ["+OK", "+PONG", "+OK", ":0"]
    assert [answer.split()[0] for answer in said[4:]] == ["-NOPERM"] * 6


def test_a_server_does_not_start_with_the_placeholder(tmp_path):
    process = start(tmp_path, FILE.read_text())
    said, _ = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "password hash must be exactly 64 characters" in said
