"""The image: what is in it, that it can be built again bit by bit, and that it runs locked down.

No container engine is needed: buildah assembles the image, umoci unpacks it, and the binary runs
in its root, mounted read-only, as its user. All of that needs root. DOORWARD_STATIC names the
binary if it is built already.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.paths import DEPLOY, ROOT
from support.processes import free_port, until

LONG_AGO = "1700000000"
USER = 65532

CONFIG = """
listen: 127.0.0.1:{proxy}
admin: {{ listen: 127.0.0.1:{admin} }}
upstream: {{ url: "http://app.test:{app}" }}
sessions: {{ store: "sqlite:///var/lib/doorward/sessions.db" }}
directory: {{ url: "sqlite:///var/lib/doorward/directory.db" }}
lifecycle: {{ drain_delay: 0s }}
routes:
  - {{ path: /open, auth: none }}
  - {{ path: "/**", auth: required }}
"""

# Root is a bind mount of its own, so that it alone can be read-only.
LOCKED_DOWN = """
set -eu
mount --make-rprivate /
mount --bind "$1" "$1"
mount --bind "$2" "$1/etc/doorward"
mount --bind "$3" "$1/var/lib/doorward"
for device in null random urandom zero; do mount --bind "/dev/$device" "$1/dev/$device"; done
mount -o remount,bind,ro "$1"
exec chroot --userspec={user}:{user} "$1" /doorward serve --config /etc/doorward/config.yaml
"""


def run(*command, **options):
    """Runs a command and returns what it printed; what it complained of ends up in the failure."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def build(context, store):
    """Builds the image in a store of its own; returns where it lies as an OCI layout."""
    buildah = ["buildah", "--storage-driver", "vfs", "--root", store / "root", "--runroot", store / "run"]
    run(
        *buildah, "bud", "--isolation", "chroot", "--timestamp", LONG_AGO, "--identity-label=false",
        "--build-arg", "VERSION=0.0.0-test", "--build-arg", "REVISION=abcdef",
        "--file", DEPLOY / "Containerfile.prebuilt", "--tag", "doorward:test", context,
    )
    run(*buildah, "push", "--quiet", "doorward:test", f"oci:{store / 'layout'}:test")
    return store / "layout"


def blob(layout, descriptor):
    """Returns a JSON document that an OCI layout holds."""
    return json.loads((layout / "blobs" / descriptor["digest"].replace(":", "/")).read_text())


def manifest_digest(layout):
    return json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]


def ask(url, method="GET", headers=None, body=None):
    """Returns status and body, whatever the status."""
    request = urllib.request.Request(url, method=method, headers=headers or {}, data=body)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture(scope="module")
def binary():
    assert os.geteuid() == 0, "mounts and owners of files need root: sudo -E, as ./test does it"
    return ROOT / (os.environ.get("DOORWARD_STATIC") or run(ROOT / "scripts/static.sh", cwd=ROOT))


@pytest.fixture(scope="module")
def context(binary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("context")
    run(DEPLOY / "rootfs", binary, folder)
    return folder


@pytest.fixture(scope="module")
def layout(context, tmp_path_factory):
    return build(context, tmp_path_factory.mktemp("store"))


@pytest.fixture
def rootfs(layout, tmp_path):
    run("umoci", "unpack", "--image", f"{layout}:test", tmp_path / "bundle")
    return tmp_path / "bundle/rootfs"


@pytest.fixture
def app():
    """An application that answers with the headers it got."""

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture
def running(rootfs, app, tmp_path):
    """The image's binary in the image's root, read-only, as the image's user."""
    ports = {"proxy": free_port(), "admin": free_port(), "app": app}
    config, data = tmp_path / "config", tmp_path / "data"
    config.mkdir()
    data.mkdir()
    os.chown(data, USER, USER)
    (config / "config.yaml").write_text(CONFIG.format(**ports))
    # What every container runtime adds; the host's name shows that the static resolver works.
    (rootfs / "etc/hosts").write_text("127.0.0.1 localhost app.test\n")
    (rootfs / "dev").mkdir(exist_ok=True)
    for device in ("null", "random", "urandom", "zero"):
        (rootfs / "dev" / device).touch()
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", LOCKED_DOWN.format(user=USER), "sh", rootfs, config, data],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    try:
        yield process, ports
    finally:
        process.kill()
        process.wait()


def test_the_binary_needs_no_shared_library(binary):
    headers = run("readelf", "--program-headers", "--dynamic", "--wide", binary)
    assert "INTERP" not in headers
    assert "NEEDED" not in headers


def test_the_binary_names_no_folder_of_the_machine_that_built_it(binary):
    content = binary.read_bytes()
    for folder in (str(ROOT), os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))):
        assert f"{folder}/".encode() not in content, folder


def test_two_builds_of_one_binary_are_one_image(context, layout, tmp_path):
    touched = tmp_path / "context"
    shutil.copytree(context, touched, symlinks=True)
    for folder, _, files in os.walk(touched):
        for name in files:
            os.utime(Path(folder) / name)
    assert manifest_digest(build(touched, tmp_path)) == manifest_digest(layout)


def test_the_image_says_what_it_is(layout):
    index = json.loads((layout / "index.json").read_text())
    config = blob(layout, blob(layout, index["manifests"][0])["config"])["config"]
    assert config["User"] == "65532:65532"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["/doorward"]
    assert config["Cmd"] == ["serve"]
    assert sorted(port.removesuffix("/tcp") for port in config["ExposedPorts"]) == ["8080", "9001", "9090"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels == {
        "title": "doorward",
        "description": "Reverse-proxy authentication sidecar",
        "source": "https://github.com/doorward/doorward",
        "licenses": "Apache-2.0",
        "version": "0.0.0-test",
        "revision": "abcdef",
    }


def test_the_image_holds_nothing_but_the_binary_and_what_it_reads(rootfs):
    files = {str(path.relative_to(rootfs)) for path in rootfs.rglob("*") if not path.is_dir()}
    assert files == {"doorward", "etc/group", "etc/passwd", "etc/ssl/certs/ca-certificates.crt"}
    data = (rootfs / "var/lib/doorward").stat()
    assert (data.st_uid, data.st_gid, data.st_mode & 0o7777) == (USER, USER, 0o755)
    for path in rootfs.rglob("*"):
        assert not path.stat().st_mode & 0o6002, f"{path}: set-id or writable for all"


def test_both_recipes_end_in_the_same_stage():
    def last_stage(name):
        stage = (DEPLOY / name).read_text().split("# The image itself.\n")[1]
        return stage.replace("--from=builder /image/", "")

    assert last_stage("Dockerfile") == last_stage("Containerfile.prebuilt")
    assert "FROM scratch" in last_stage("Dockerfile")


def test_the_build_context_holds_what_the_build_reads(tmp_path):
    """What .dockerignore lets in is a package that cargo accepts, with every file that it embeds."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    for name in (rule[1:] for rule in rules if rule.startswith("!")):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    package = json.loads(run("cargo", "metadata", "--no-deps", "--offline", "--locked", "--format-version=1", cwd=tmp_path))
    assert "doorward" in {target["name"] for target in package["packages"][0]["targets"]}
    built = (source for source in (tmp_path / "src").rglob("*.rs") if "tests" not in (source.stem, source.parent.name))
    for source in built:
        for embedded in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
            assert (source.parent / embedded).exists(), f"{source}: {embedded}"


def test_dockerfile_is_clean():
    for name in ("Dockerfile", "Containerfile.prebuilt"):
        run(Path(sys.executable).parent / "hadolint", DEPLOY / name)


def test_it_serves_read_only_as_a_user_without_a_name_elsewhere(running):
    process, ports = running
    admin, proxy = f"http://127.0.0.1:{ports['admin']}", f"http://127.0.0.1:{ports['proxy']}"

    def started():
        try:
            return ask(f"{admin}/startupz")[0] == 200
        except OSError:
            return False

    until(started, "start", process, process.stdout.read)
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert re.search(rf"^Uid:\s+{USER}\s+{USER}\s+{USER}\s+{USER}$", status, re.MULTILINE)
    assert re.search(rf"^Gid:\s+{USER}\s", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    root = next(line for line in Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines() if line.split()[4] == "/")
    assert "ro" in root.split()[5].split(",")

    assert ask(f"{proxy}/open")[0] == 200
    assert ask(f"{proxy}/notes") == (401, b'{"detail":"Missing Bearer token"}')
    body = json.dumps({"device_id": "device-of-the-image-test"}).encode()
    status, answer = ask(f"{proxy}/auth/anonymous", "POST", {"Content-Type": "application/json"}, body)
    assert status == 200, answer
    token = json.loads(answer)["token"]
    status, answer = ask(f"{proxy}/notes", headers={"Authorization": f"Bearer {token}"})
    assert status == 200, answer
    assert json.loads(answer)["x-user-id"].startswith("anon:")

    process.terminate()
    assert process.wait(timeout=60) == 0
