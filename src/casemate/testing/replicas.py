"""Brokers as processes that tests kill, one or two on a store, behind a proxy that passes TLS through."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, select

from casemate.broker import prepare
from casemate.broker.assemble import ADMIN_PUBLIC, TLS_KEY, assemble
from casemate.broker.settings import FILE, Settings, load
from casemate.drivers import brokerclient, keyfiles
from casemate.drivers.brokerclient import Admin
from casemate.drivers.daemons import free_port
from casemate.drivers.store import log as entries
from casemate.drivers.store import tables
from casemate.errors import CasemateError
from casemate.ledger import merkle, note, tiles
from casemate.schema import manifest as manifests
from casemate.schema.reference import ReferenceValues
from casemate.testing import programs
from casemate.testing.broker import document
from casemate.testing.crowd import Acknowledged, Crowd
from casemate.testing.tpm import FakeTpm, FakeVendor

_START = 90.0  # a machine may have much else to do
_PROXY = """\
global
  maxconn 2000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  retries 5
  option redispatch 1
listen brokers
  bind 127.0.0.1:{port}
  balance roundrobin
  option httpchk GET /readyz
  default-server check check-ssl verify none inter 200ms fall 1 rise 1
"""


class Outage(NamedTuple):
    """From the kill of a broker until it answers again, by the machine's monotonic clock."""

    begun: float
    ended: float


class Replica:
    """One `casemate serve`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.settings = folder, load(folder)
        self.pin = prepare.pin(folder)
        self.url = f"https://127.0.0.1:{self.settings.port}"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        argv = [
            sys.executable,
            "-m",
            "casemate",
            "serve",
            "--home",
            str(self.folder),
            "--log",
            str(self.folder / "log"),
        ]
        environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
        with (self.folder / "stderr").open("ab") as said:
            self._child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment)
        deadline = time.monotonic() + _START
        while self._child.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(CasemateError):
                brokerclient.info(self.url, self.pin, timeout=5)
                return
            time.sleep(0.05)
        words = (self.folder / "stderr").read_text("utf-8", "replace")[-2000:]
        raise RuntimeError(f"the broker did not start ({self._child.poll()}): {words}")

    def kill(self) -> None:
        """Kill -9."""
        if self._child is not None:
            self._child.kill()
            self._child.wait(20)

    def stop(self) -> int:
        """A graceful end; the exit code."""
        if self._child is None:
            return 0
        self._child.terminate()
        try:
            return self._child.wait(30)
        except subprocess.TimeoutExpired:
            self._child.kill()
            raise


def prepared(folder: Path, store: str = "", **options: object) -> Settings:
    """A broker that accepts the sample TEE, so that the load is the broker's and not that of cryptography."""
    more = {"store": store} if store else {}
    kept = {"challenge_seconds": 3600}  # and with it spent nonces, longer than a test takes
    chosen = {"refused_tees": [], "accepted_cautions": ["sample.proof"], "port": free_port(), **kept, **more, **options}
    return prepare.prepare(folder, folder / prepare.ADMIN_KEY, **chosen)


def twin(one: Path, two: Path) -> Path:
    """A second replica of the broker in `one`: the same keys and settings, another port."""
    was = load(one)
    for name in ("master.key", TLS_KEY, ADMIN_PUBLIC, prepare.ADMIN_KEY):
        keyfiles.write(two / name, (one / name).read_bytes())
    text = (one / FILE).read_text("utf-8").replace(f"port = {was.port}", f"port = {free_port()}")
    keyfiles.write(two / FILE, text.encode())
    return two


@contextmanager
def proxied(folder: Path, ports: list[int]) -> Iterator[int]:
    """Haproxy before the brokers on `ports`; yields its own port."""
    port, path = free_port(), folder / "haproxy.cfg"
    servers = "".join(f"  server broker{n} 127.0.0.1:{at}\n" for n, at in enumerate(ports))
    path.write_text(_PROXY.format(port=port) + servers, encoding="ascii")
    with (folder / "haproxy.log").open("wb") as said:
        child = subprocess.Popen([programs.find("haproxy"), "-db", "-f", path], stdout=said, stderr=said)
    try:
        _listening(port, child)
        yield port
    finally:
        child.terminate()
        child.wait(20)


def _listening(port: int, child: subprocess.Popen[bytes]) -> None:
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if child.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError("haproxy does not listen")


def crowd(port: int, replica: Replica, *, guests: int = 6) -> Crowd:
    """An app with a secret on a running broker, and a crowd that reads and writes through `port`."""
    vendor = FakeVendor()
    admin = Admin(f"https://127.0.0.1:{port}", replica.pin, replica.folder / prepare.ADMIN_KEY)
    admin.add_anchor(vendor.anchor)
    plain = FakeTpm(vendor=vendor).measurement.values
    admin.call("POST", "/tenants/*", {"unsigned_references": True})
    admin.add_reference(ReferenceValues(name="plain", tee="tpm", values=plain))
    admin.add_reference(ReferenceValues(name="sample", tee="sample", values={"launch_digest": "abcde"}))
    app, path = str(admin.found("demo", "web", ("development",))["app_id"]), "crowd/key/1"
    manifest = manifests.from_builtins(document(app, replica.pin, resources=(f"kbs:///{path}",)))
    admin.add_release(app, manifest.canonical())
    admin.put_resource(app, f"kbs:///{path}", b"first")
    return Crowd(port, admin, app, manifest, path, vendor=vendor, guests=guests)


def wait_for(seen: Acknowledged, handshakes: int, secrets: int, seconds: float = 120.0) -> None:
    """Let the crowd get on."""
    begun, was = time.monotonic(), (seen.accepted.total(), len(seen.secrets))
    while time.monotonic() - begun < seconds:
        if seen.accepted.total() - was[0] >= handshakes and len(seen.secrets) - was[1] >= secrets:
            return
        time.sleep(0.02)
    raise AssertionError(f"the crowd got {seen.accepted.total() - was[0]} handshakes in {seconds} s: {seen.faults[:3]}")


def unexplained(seen: Acknowledged, outages: list[Outage]) -> list[str]:
    """Breaks of connections that no kill explains."""
    return [one.why for one in seen.breaks if not any(o.begun <= one.broke and one.opened <= o.ended for o in outages)]


def lost(settings: Settings, seen: Acknowledged) -> list[str]:
    """What was acknowledged and is not in the store, and every disagreement with the log; the broker has ended."""
    broker = assemble(settings)
    told: list[str] = []
    c = tables.resource_versions.c
    try:
        with broker.store.read() as tx:
            for path, (version, value) in seen.secrets.items():
                found = tx.execute(select(c.sealed).where(c.path == path, c.version == version)).scalar_one_or_none()
                if found is None or broker.vault.open(f"resource:{path}:{version}", bytes(found)) != value:
                    told.append(f"secret {path} version {version}")
            told += [f"receipt {one}" for one in sorted(seen.receipts) if entries.opened(tx, one) is None]
            spent = set(tx.execute(tables.spent_nonces.select()).scalars())
            told += [f"nonce {one}" for one in seen.accepted if one not in spent]
            told += differing(tx, seen.checkpoints)
    finally:
        broker.close()
    return told


def differing(tx: Connection, checkpoints: set[str]) -> list[str]:
    """Checkpoints that are not of this log; and whether the log's own tiles are those of its entries."""
    state, known = entries.state(tx), entries.keys(tx)
    if state is None or known is None:
        return ["the log is gone"]
    leaves = [merkle.leaf(entry) for start in range(0, state.size, 1024) for entry in entries.entries(tx, start, 1024)]
    told, node = [], tiles.nodes(entries.reader(tx))
    if len(leaves) != state.size or entries.length(tx) != state.size:
        told.append(f"{len(leaves)} entries of {state.size}")
    if merkle.crown(merkle.extended(0, (), leaves)) != state.root or merkle.root(state.size, node) != state.root:
        told.append("entries, tiles and state differ")
    for signed in checkpoints:
        text, _ = note.open_note(signed, known.verifiers)
        found = note.parse_checkpoint(text)
        if found.size > state.size or merkle.root(found.size, node) != found.root:
            told.append(f"checkpoint {found.size} of {state.size}")
    return told


@contextmanager
def running(*replicas: Replica) -> Iterator[None]:
    """Start brokers, and end them all in the end."""
    try:
        for replica in replicas:
            replica.start()
        yield
    finally:
        for replica in replicas:
            with contextlib.suppress(Exception):
                replica.stop()


def killed(replica: Replica) -> Outage:
    """Kill a broker and start it again."""
    begun = time.monotonic()
    replica.kill()
    replica.start()
    return Outage(begun, time.monotonic())
