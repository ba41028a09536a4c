"""The agent as an ordinary process: a real broker on loopback, a fake TPM's evidence, processes for containers."""

import os
import subprocess
import threading
import time
import tty
from datetime import timedelta
from pathlib import Path

import pytest

from casemate.boot import initdata
from casemate.drivers.crun import Output
from casemate.guest.attest import Attester
from casemate.guest.settings import Settings
from casemate.image import manifest as oci
from casemate.schema import manifest as manifests
from casemate.testing import broker as brokers
from casemate.testing.tpm import FakeTpm
from casemate.wire import frames

DIGEST = "ab" * 32
IMAGE = "registry.example/web@sha256:" + DIGEST


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A broker that trusts its test vendor and a plain boot."""
    made = brokers.start(tmp_path_factory.mktemp("broker"))
    made.trust()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _clock_set_back(request):
    yield
    if "service" in request.fixturenames:
        request.getfixturevalue("service").clock.shift = timedelta()


class Host:
    """The host's end of a control channel over a pseudo terminal, which has a small buffer like a virtio port."""

    def __init__(self):
        self._master, slave = os.openpty()
        tty.setraw(slave)
        tty.setraw(self._master)
        self.path = Path(os.ttyname(slave))
        self._slave = slave
        self.messages = []
        self._listening = threading.Event()
        self._reader = frames.FrameReader()
        self._thread = None

    def listen(self):
        """Read from now on."""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def send(self, message):
        self.send_raw(frames.pack(message))

    def send_raw(self, data):
        while data:
            data = data[os.write(self._master, data[:1024]) :]

    def wait(self, wanted, seconds=15):
        """The first message for which `wanted(message)` is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for message in list(self.messages):
                if wanted(message):
                    return message
            time.sleep(0.01)
        raise AssertionError(f"not heard; there were {self.messages}")

    def wait_state(self, state, seconds=15):
        return self.wait(lambda m: m["type"] == "state" and m["state"] == state, seconds)

    def ask(self, ident, **message):
        self.send({"id": ident, **message})
        return self.wait(lambda m: m["type"] == "reply" and m["id"] == ident)

    def close(self):
        os.close(self._slave)
        os.close(self._master)

    def _read(self):
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            self.messages += self._reader.feed(data)


@pytest.fixture
def host():
    made = Host()
    yield made
    made.close()


class Plain:
    """A runtime without containers: the bundle's process as a child, for what isn't about isolation."""

    def __init__(self):
        self.bundles, self.processes = {}, {}

    def run(self, name, bundle, stdout, stderr):
        import json

        config = self.bundles[name] = json.loads((bundle / "config.json").read_text())
        env = dict(line.split("=", 1) for line in config["process"]["env"])
        process = subprocess.Popen(config["process"]["args"], stdout=stdout, stderr=stderr, env=env)
        process.returncode = 0  # the supervisor waits for it, Popen must not
        self.processes[name] = process.pid
        return process.pid

    def kill(self, name, signal):
        pass

    def delete(self, name):
        pass

    def execute(self, name, command, *, timeout, limit):
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
        return Output(done.returncode, done.stdout[:limit], done.stderr[:limit])


@pytest.fixture
def plain():
    return Plain()


class Pulled:
    """What a pull of an image with one shell gives."""

    def __init__(self, rootfs, **process):
        layers = oci.RootFs(type="layers", diff_ids=())
        self.config = oci.Config(architecture="amd64", os="linux", rootfs=layers, config=oci.Process(**process))
        self.rootfs, self.digest = rootfs, "sha256:" + DIGEST
        self.findings, self.stored_bytes, self.entries, self.seconds = (), 0, 0, {}


def pull(reference, *, registry, signers, keys, target, progress=None):
    """An image without a registry."""
    rootfs = target / "rootfs"
    (rootfs / "etc").mkdir(parents=True)
    return Pulled(rootfs, Env=["FROM=image"])


def container(command="sleep 60", **parts):
    """A container of the manifest that runs a shell command."""
    return {"name": "web", "image": IMAGE, "command": ["/bin/sh", "-c", command], **parts}


class Machine:
    """Founds an app, registers a manifest, and makes the settings of an agent that may run it."""

    def __init__(self, service, folder, host, runtime):
        self.service, self.folder, self.host, self.runtime = service, folder, host, runtime
        self.app = str(service.admin.found("tenant", "web", ("development",))["app_id"])
        self.tpm = FakeTpm(vendor=service.vendor)
        self.manifest = None

    def secret(self, path, value):
        """Store `kbs:///<path>` for this machine's app; returns the URI."""
        self.service.admin.put_resource(self.app, f"kbs:///{path}", value)
        return f"kbs:///{path}"

    container = staticmethod(container)

    def settings(self, *containers, register=True, **parts):
        document = {
            "apiVersion": "casemate/v1",
            "name": "web",
            "app": self.app,
            "brokers": [{"url": self.service.url, "key": self.service.pin}],
            "signers": [{"key": brokers.SIGNER, "images": ["registry.example/*"]}],
            "containers": list(containers) or [container()],
            **parts,
        }
        self.manifest = manifests.from_builtins(document)
        if register:
            self.service.admin.add_release(self.app, self.manifest.canonical())
        run = self.folder / "run"
        run.mkdir(exist_ok=True)
        (run / "initdata.toml").write_bytes(initdata.document(self.manifest))
        self.tpm.initdata = (run / "initdata.toml").read_bytes()
        return Settings(
            run=run,
            control=self.host.path,
            attester=Attester("tpm", self.tpm.collect),
            runtime=self.runtime,
            pull=pull,
            overlay=False,
            firewall=False,
            refresh_seconds=0.05,
            attempts=2,
            backoff=0.01,
        )


@pytest.fixture
def machine(service, tmp_path, host, plain):
    return Machine(service, tmp_path, host.listen(), plain)


@pytest.fixture
def running(machine):
    """Starts an agent in a thread: `running(settings)`; it is stopped at the end of the test."""
    from casemate.guest.start import start

    results = []
    threads = []

    def begin(settings):
        thread = threading.Thread(target=lambda: results.append(start(settings)), daemon=True)
        thread.start()
        threads.append(thread)
        return results

    begin.results = results
    begin.threads = threads
    yield begin
    for thread in threads:
        if thread.is_alive():
            machine.host.send({"type": "stop", "id": "end", "grace": 0})
            thread.join(20)
            assert not thread.is_alive()
