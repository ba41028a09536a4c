"""kill -9 of a serving broker in the middle of writes: what was acknowledged is there afterwards."""

import os
import signal
import subprocess
import sys
import threading
import time

from casemate.broker import prepare
from casemate.broker.assemble import assemble
from casemate.drivers import brokerclient, http
from casemate.drivers.daemons import free_port
from casemate.drivers.store import vaulted
from casemate.errors import CasemateError


def serve(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "casemate", "serve", "--home", str(folder), "--log", str(folder / "log")],
        stdin=subprocess.DEVNULL,
    )


def wait(url, pin):
    return http.retrying(lambda: brokerclient.info(url, pin), attempts=40, backoff=0.1, longest=0.25)


def test_acknowledged_writes_survive_kill_9(tmp_path):
    settings = prepare.prepare(tmp_path / "b", tmp_path / "admin.key", port=free_port())
    url, pin = f"https://127.0.0.1:{settings.port}", prepare.pin(settings.folder)
    admin = brokerclient.Admin(url, pin, tmp_path / "admin.key")
    child = serve(settings.folder)
    try:
        wait(url, pin)
        app = admin.found("demo", "web", ("development",))["app_id"]
        kept = {}

        def write(thread):
            number = 0
            while True:
                path = f"t{thread}/k/{number}"
                try:
                    admin.put_resource(app, f"kbs:///{path}", path.encode())
                except CasemateError:
                    return
                kept[path] = number
                number += 1

        threads = [threading.Thread(target=write, args=(t,)) for t in range(3)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while len(kept) < 25 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait(10)
        for thread in threads:
            thread.join(20)
        assert len(kept) >= 25
        child = serve(settings.folder)
        wait(url, pin)
        listed = {entry["resource"] for entry in admin.resources(app)}
        assert listed >= {f"kbs:///{path}" for path in kept}
        child.terminate()
        assert child.wait(20) == 0
    finally:
        if child.poll() is None:
            child.kill()
    broker = assemble(settings)
    with broker.store.read() as tx:
        for path in kept:
            found = vaulted.newest(tx, path)
            assert broker.vault.open(f"resource:{path}:{found.version}", found.sealed) == path.encode()
    broker.close()


def test_secrets_are_not_readable_at_rest_nor_in_the_log(tmp_path):
    settings = prepare.prepare(tmp_path / "b", tmp_path / "admin.key", port=free_port())
    url, pin = f"https://127.0.0.1:{settings.port}", prepare.pin(settings.folder)
    admin = brokerclient.Admin(url, pin, tmp_path / "admin.key")
    child = serve(settings.folder)
    try:
        wait(url, pin)
        app = admin.found("demo", "web", ("development",))["app_id"]
        admin.put_resource(app, "kbs:///a/b/c", b"correct horse battery staple")
    finally:
        child.terminate()
        child.wait(20)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"correct horse" not in path.read_bytes(), path
            if path.suffix == ".key":
                assert path.stat().st_mode & 0o077 == 0, path
