"""What the manifests say of the binary is so: its arguments, the paths of its probes, its commands."""

import re
import subprocess

import pytest
from support import helm, manifests, paths
from support.paths import CHART, DEPLOY
from support.processes import free_port, until

VALUES = {"replicaCount": 1, "upstream": {"url": "http://127.0.0.1:3000"}, "lifecycle": {"drainDelaySeconds": 0}}


def probe(url: str) -> int:
    """The exit code of `doorward probe`."""
    return subprocess.run([paths.doorward(), "probe", url], capture_output=True, timeout=60).returncode


@pytest.fixture(scope="module")
def release():
    """The objects of a release with one replica."""
    return helm.render(CHART, VALUES)


@pytest.fixture(scope="module")
def container(release) -> manifests.Object:
    """Its container."""
    return helm.one(release, "Deployment")["spec"]["template"]["spec"]["containers"][0]


@pytest.fixture(scope="module")
def started(release, container, tmp_path_factory) -> tuple[str, subprocess.Popen]:
    """The admin port and the process of the binary, started with the container's arguments and the rendered configuration."""
    folder, port = tmp_path_factory.mktemp("pod"), free_port()
    text = helm.one(release, "ConfigMap")["data"]["config.yaml"]
    text = text.replace("0.0.0.0:8080", f"127.0.0.1:{free_port()}").replace("0.0.0.0:9090", f"127.0.0.1:{port}")
    (folder / "config.yaml").write_text(text)
    arguments = [argument.replace("/etc/doorward", str(folder)) for argument in container["args"]]
    environment = {
        "DOORWARD__SESSIONS__STORE": f"sqlite://{folder}/sessions.db",
        "DOORWARD__DIRECTORY__URL": f"sqlite://{folder}/directory.db",
    }
    log = (folder / "log").open("w+")
    server = subprocess.Popen([paths.doorward(), *arguments], env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    until(lambda: probe(f"{url}/startupz") == 0, "start", server, (folder / "log").read_text)
    yield url, server
    server.terminate()
    assert server.wait(timeout=60) == 0
    log.close()


@pytest.fixture(scope="module")
def admin(started) -> str:
    """Its admin port."""
    return started[0]


@pytest.mark.parametrize("kind", ["startup", "liveness", "readiness"])
def test_a_probe_asks_a_path_that_answers(started, container, kind):
    admin, server = started
    path = container[f"{kind}Probe"]["httpGet"]["path"]
    until(lambda: probe(admin + path) == 0, path, server)


def test_a_path_that_is_none_does_not_answer(admin):
    assert probe(f"{admin}/nothing") == 1


def test_metrics_are_where_the_monitors_look(admin):
    values = helm.values(CHART / "ci" / "pod-monitor-values.yaml")
    endpoint = helm.one(helm.render(CHART, values), "PodMonitor")["spec"]["podMetricsEndpoints"][0]
    assert probe(admin + endpoint["path"]) == 0


def test_helm_test_uses_the_commands_arguments(admin, release):
    command, url = helm.one(release, "Pod")["spec"]["containers"][0]["args"]
    assert command == "probe"
    assert probe(re.sub(r"http://[^/]+", admin, url)) == 0


def test_the_drain_command_exists_and_the_image_starts_the_binary():
    sidecar = next(
        each for each in manifests.load((DEPLOY / "sidecar.yaml").read_text()) if each["kind"] == "Deployment"
    )
    binary, command = sidecar["spec"]["template"]["spec"]["initContainers"][0]["lifecycle"]["preStop"]["exec"][
        "command"
    ]
    assert subprocess.run([paths.doorward(), command, "--help"], capture_output=True, timeout=60).returncode == 0
    recipe = (DEPLOY / "Dockerfile").read_text()
    assert f'ENTRYPOINT ["{binary}"]' in recipe
    assert "USER 65532:65532" in recipe
