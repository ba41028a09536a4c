"""The broker as a workload: its image in a chroot, and once in a VM, where it shows what it is and attests a guest."""

import json
import os
import shutil
import signal
import string
import subprocess
import sys
import time
from pathlib import Path

import pytest
from examples.demo import service as demo
from examples.demo.steps import free_port

from casemate.broker import prepare
from casemate.drivers import brokerclient, debs, http, tlspeer, tools
from casemate.schema.reference import ReferenceValues
from casemate.testing.tpm import FakeTpm, FakeVendor

CATALOG = Path(__file__).parents[2] / "catalog" / "broker"
sys.path.insert(0, str(CATALOG))
import recipe  # noqa: E402 - a program's folder, not a package
import smoke  # noqa: E402

pytestmark = [pytest.mark.tools, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def root():
    """The image's root filesystem."""
    with demo.scratch() as folder:
        made = Path(folder) / "root"
        made.mkdir()
        recipe.build(made, lambda _: None)
        yield made


def test_the_image_holds_no_shell_and_no_key(root):
    assert sorted(path.name for path in (root / "usr/bin").iterdir()) == ["python3.13"]
    assert not list(root.rglob("*.key"))
    assert (root / recipe.SITE / "casemate/cli/__pycache__/serve.cpython-313.pyc").exists()
    assert "BEGIN CERTIFICATE" in (root / "etc/ssl/certs/ca-certificates.crt").read_text()
    assert not (root / recipe.SITE / "casemate/testing").exists()


@pytest.fixture
def inside(root, tmp_path):
    """The image's first process in a chroot, as its user, and the port that it serves."""
    if os.geteuid() != 0:
        pytest.skip("a chroot needs root")
    prepare.prepare(tmp_path, tmp_path / "admin.key")
    port = free_port()
    (root / "run/secrets/admin.pub").write_bytes((tmp_path / "admin.pub").read_bytes())
    (root / "run/secrets/broker.toml").write_text(f'port = {port}\nhost = "127.0.0.1"\n')
    (root / "tmp").chmod(0o1777)
    for name in ("run/secrets/admin.pub", "run/secrets/broker.toml", "var/lib/casemate"):
        os.chown(root / name, 901, 901)
    process = subprocess.Popen(
        ["chroot", "--userspec=901:901", root, *recipe.ENTRYPOINT],
        stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
    )
    yield port, process, tmp_path
    if process.poll() is None:
        process.kill()
    process.communicate()
    for path in (root / "run/secrets").iterdir():
        path.unlink()
    shutil.rmtree(root / "var/lib/casemate/broker", ignore_errors=True)


def get(port, path):
    """Under whatever key it shows: this waits for somebody to answer and believes nothing."""
    return http.request("GET", f"https://127.0.0.1:{port}{path}", pin=tlspeer.pin("127.0.0.1", port), timeout=20)


def ready(port, process):
    for _ in range(600):
        try:
            if get(port, "/readyz").status == 200:
                return
        except Exception:
            pass
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("not ready")


def test_the_image_in_a_chroot(inside, root):
    port, process, _ = inside
    ready(port, process)
    for group, said in (("X25519MLKEM768", "group: X25519MLKEM768"), ("X25519", "X25519")):
        assert said in s_client(port, group)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads(errors.splitlines()[-1])["message"] == "stopped"
    folder = root / "var/lib/casemate/broker"
    assert {path.stat().st_mode & 0o077 for path in folder.iterdir()} == {0}


def s_client(port, group):
    """What the image's own OpenSSL 3.5, as a client that offers one group, says of the handshake."""
    with demo.scratch() as folder:
        tree = Path(folder)
        wanted = ("base-files", "libc6", "libssl3t64", "libzstd1", "openssl", "zlib1g")
        packages = [p for p in debs.parse_lock(recipe.LOCK.read_text()) if p.name in wanted]
        files = debs.fetch(packages, progress=lambda _: None)
        tools.unpack((files[name] for name in wanted), tree)
        libraries = tree / "usr/lib/x86_64-linux-gnu"
        argv = [libraries / "ld-linux-x86-64.so.2", "--library-path", libraries, tree / "usr/bin/openssl", "s_client"]
        done = subprocess.run(
            [*argv, "-connect", f"127.0.0.1:{port}", "-groups", group],
            input=b"", capture_output=True, env={"OPENSSL_CONF": "/dev/null"}, check=False, timeout=60,
        )  # fmt: skip
        return done.stdout.decode()


# --- in a VM ---------------------------------------------------------------------------------------------------------


class Desk:
    """`casemate …` in a home of its own."""

    def __init__(self, home):
        self.environment = {**os.environ, "CASEMATE_HOME": str(home)}

    def __call__(self, *words, given=None):
        feed = {"input": given} if given is not None else {"stdin": subprocess.DEVNULL}
        argv = [sys.executable, "-m", "casemate", *map(str, words), "--json"]
        done = subprocess.run(argv, env=self.environment, capture_output=True, check=False, **feed)
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def workload(root, tmp_path_factory):
    """A broker in a VM, released its keys by the local one: (desk, app, port, the inner admin's key, name)."""
    work, desk = tmp_path_factory.mktemp("work"), Desk(tmp_path_factory.mktemp("home"))
    context = desk("up")
    private, public = demo.signing_key()
    signer = work / "signer.pem"
    signer.touch(mode=0o600)
    signer.write_bytes(private)
    desk("image", "build", "--root", root, "--owner", "0:0", "--entrypoint", recipe.ENTRYPOINT[0],
         *(word for part in recipe.ENTRYPOINT[1:] for word in ("--cmd", part)), work / "layout")  # fmt: skip
    repository = f"{context['registry']['host']}/catalog/broker"
    image = f"{repository}@{desk('image', 'push', work / 'layout', f'{repository}:1', '--plain-http')['digest']}"
    desk("image", "sign", image, "--key", signer, "--plain-http")
    app = desk("app", "found", "--tenant", "demo", "--name", "broker", "--platform", "development")["app_id"]
    text = string.Template((CATALOG / "manifest.yaml").read_text()).substitute(
        app=app,
        broker_url=context["broker"]["guest_url"],
        broker_key=context["broker"]["pin"],
        signer=json.dumps(public),
        repository=f"{context['registry']['host']}/catalog/*",
        image=image,
        secrets="inner",
    )
    registry = {"prefix": context["registry"]["host"], "location": context["registry"]["guest_host"], "insecure": True}
    (work / "broker.yaml").write_text(f"{text}registries: [{json.dumps(registry)}]\nhost: {{logs: true}}\n")
    desk("manifest", "check", work / "broker.yaml")
    prepare.prepare(work / "inner", work / "inner-admin.key")
    desk("secret", "set", "kbs:///inner/admin/public", "--app", app, given=(work / "inner/admin.pub").read_bytes())
    desk("release", "add", app, work / "broker.yaml")
    port = free_port()
    name = desk("run", work / "broker.yaml", "--publish", f"{port}:8443", "--name", "inner", "--memory", "1536")["id"]
    yield desk, app, port, work / "inner-admin.key", name
    desk("stop", name)
    desk("rm", name)
    desk("down")


@pytest.mark.vm
def test_a_broker_in_a_vm(workload, monkeypatch):
    """It shows what it is; under the key that its evidence vouches for it serves an admin, and attests a guest."""
    desk, app, port, admin_key, name = workload
    monkeypatch.setenv("CASEMATE_HOME", desk.environment["CASEMATE_HOME"])
    for _ in range(300):
        try:
            if get(port, "/healthz").status == 200:
                break
        except Exception:
            time.sleep(0.5)
    else:
        pytest.fail(f"no answer: {desk('inspect', name)} {desk('logs', name)}")
    said = smoke.verified(f"127.0.0.1:{port}", app)
    assert said.get("verdict") == "accepted", (said, desk("logs", name))
    url, pin = f"https://127.0.0.1:{port}", said["tls_key"]
    assert smoke.asked(url, pin)["ready"]["store"] is True
    admin = brokerclient.Admin(url, pin, admin_key)
    vendor = FakeVendor()
    admin.add_anchor(vendor.anchor)
    admin.call("POST", "/tenants/*", {"unsigned_references": True})  # nobody signs what a test measures
    admin.add_reference(ReferenceValues(name="plain", tee="tpm", values=FakeTpm(vendor=vendor).measurement.values))
    peer = Peer(url, pin, vendor)
    assert peer.handshake().status == 200
    assert peer.token.count(".") == 2


class Peer:
    """A guest with a fake vendor's TPM, outside, that attests to the broker in the VM."""

    def __init__(self, url, pin, vendor):
        from casemate.testing.broker import Guest

        self.service = type("Inner", (), {"vendor": vendor, "call": self.call})()
        self.url, self.pin, self.guest = url, pin, Guest(self.service)

    def call(self, method, path, body=None, **headers):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return http.request(method, self.url + path, headers=headers, body=data, pin=self.pin, timeout=60)

    def handshake(self):
        return self.guest.handshake()

    @property
    def token(self):
        return self.guest.token
