"""Full handshakes and resource reads of 32 guests against a real `casemate serve`, guests on the same machine.

A handshake is a challenge, an attestation with evidence of a fake SEV-SNP chip, and one resource. Other load hides what
a broker can do, so beside the rates as they happened stand those that the CPU time gives: so many acts a second when
server and guests have all CPUs to themselves.

    python -m bench load                              # a short run, and where the time goes
    python -m bench.load --handshakes 50000           # the long run: is memory flat?
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from bench import _floor
from bench._guests import Guest, Maker, Tally, Target, crowd
from casemate.boot import initdata
from casemate.broker import prepare
from casemate.broker.settings import load
from casemate.drivers import brokerclient, collateral
from casemate.schema import manifest as manifests
from casemate.schema.endorsements import Anchor
from casemate.schema.reference import ReferenceValues
from casemate.testing import broker as papers
from casemate.testing import vendors
from casemate.testing.snp import FakeChip

CLIENTS, WORKERS = 32, 2
HANDSHAKES, READS = 250, 1000  # a second, as the project wants them
P99_MS, RSS_MIB = 250, 250
FLAT_MIB = 16  # what a process may still grow after its first third of a long run
NAME, PATH, SECRET = "web", "load/key/1", bytes(range(32))
_TICKS = os.sysconf("SC_CLK_TCK")


class Server(NamedTuple):
    """A running `casemate serve` with an app; `started` is the process that we started."""

    target: Target
    started: subprocess.Popen[bytes]

    @property
    def processes(self) -> list[int]:
        """Its workers, or the one process that there is."""
        children = Path(f"/proc/{self.started.pid}/task/{self.started.pid}/children").read_text().split()
        return [int(pid) for pid in children] or [self.started.pid]

    def cpu(self) -> float:
        """CPU seconds of its processes so far."""
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.processes]
        return sum(int(field[11]) + int(field[12]) for field in fields) / _TICKS

    def rss(self) -> list[float]:
        """MiB that each process has resident."""
        found = [Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in self.processes]
        return [int(pages) * os.sysconf("SC_PAGE_SIZE") / (1 << 20) for pages in found]


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 when a target is missed, be the machine ever so idle."""
    asked = _asked([] if argv is None else argv)
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; {CLIENTS} guests, {asked.workers} server processes",
        flush=True,
    )
    floor = _floor.measured()
    with serving(asked.store, workers=asked.workers) as running:
        handshakes, good = _handshakes(running, asked)
        good &= _reads(running, asked)
    if not asked.no_profile:
        _profile(asked, floor)
    server, guest = floor.total * 1e3, floor.guest * 1e3
    print(f"    bare crypto of one handshake: server {server:.2f} ms (the floor), guest {guest:.2f}")
    print(f"    a handshake takes the server {handshakes * 1e3:.2f} ms, {handshakes / floor.total:.1f} times the floor")
    return 0 if good else 1


def _asked(argv: list[str]) -> argparse.Namespace:
    asked = argparse.ArgumentParser(prog="bench.load")
    asked.add_argument("--seconds", type=float, default=15.0)
    asked.add_argument("--handshakes", type=int, default=0, help="so many instead of so many seconds")
    asked.add_argument("--workers", type=int, default=WORKERS)
    asked.add_argument("--store", default="", help="a database URL; by default SQLite in a temporary folder")
    asked.add_argument("--no-profile", action="store_true")
    return asked.parse_args(argv)


def _handshakes(server: Server, asked: argparse.Namespace) -> tuple[float, bool]:
    """The server's CPU seconds of one handshake, and whether the targets are met."""
    seen: list[list[float]] = []
    every = max(1, asked.handshakes // 10)
    spent = [0.0]

    def begun() -> None:
        spent[0] = server.cpu()
        seen.append(server.rss())

    def look(done: int) -> None:
        if asked.handshakes and done % every == 0:
            seen.append(server.rss())

    run = crowd(
        server.target, CLIENTS, Guest.handshake, ready=begun, seconds=asked.seconds, count=asked.handshakes, look=look
    )
    tally = asyncio.run(run)
    each = (server.cpu() - spent[0]) / len(tally.times)
    seen.append(server.rss())
    quiet = _told("handshakes", tally, each, asked.workers)
    most = max(max(row) for row in seen)
    print("    resident MiB per process: " + ", ".join("/".join(f"{n:.0f}" for n in row) for row in seen))
    grown = max(last - first for first, last in zip(seen[len(seen) // 3], seen[-1], strict=True))
    flat = grown < FLAT_MIB or not asked.handshakes
    print(f"    wanted: {HANDSHAKES}/s, p99 {P99_MS} ms, {RSS_MIB} MiB, flat", end="; ")
    print(f"grown since a third of the run: {grown:.1f} MiB")
    # So many guests in a closed loop wait the shorter the more of them are served.
    waited = tally.percentile(0.99) * min(1.0, tally.rate / quiet)
    print(f"    p99 on a quiet machine: {waited:.0f} ms")
    return each, max(quiet, tally.rate) >= HANDSHAKES and waited < P99_MS and most < RSS_MIB and flat


def _reads(server: Server, asked: argparse.Namespace) -> bool:
    spent = [0.0]

    def begun() -> None:
        spent[0] = server.cpu()

    tally = asyncio.run(crowd(server.target, CLIENTS, Guest.read, ready=begun, seconds=asked.seconds / 2))
    quiet = _told("resource reads", tally, (server.cpu() - spent[0]) / len(tally.times), asked.workers)
    print(f"    wanted: {READS}/s")
    return max(quiet, tally.rate) >= READS


def _told(what: str, tally: Tally, each: float, workers: int) -> float:
    """Print a run; returns how many a second this machine would do if nobody else used it."""
    guest, cpus = tally.cpu / len(tally.times), os.cpu_count() or 1
    quiet = min(cpus / (each + guest), workers / each, 1 / guest)
    print(
        f"{what}: {len(tally.times)} in {tally.seconds:.1f} s = {tally.rate:.0f}/s,"
        f" p50 {tally.percentile(0.5):.0f} ms, p99 {tally.percentile(0.99):.0f} ms"
    )
    print(f"    CPU each: server {each * 1e3:.2f} ms, guest {guest * 1e3:.2f} ms; a quiet machine: {quiet:.0f}/s")
    return quiet


def _profile(asked: argparse.Namespace, floor: _floor.Floor) -> None:
    """Where the CPU time of a handshake goes, from a run with one process."""
    with tempfile.TemporaryDirectory() as folder, serving(asked.store, told=Path(folder) / "cpu.json") as server:
        file = Path(folder) / "cpu.json"
        before: list[dict[str, float]] = []
        run = crowd(
            server.target, CLIENTS, Guest.handshake, ready=lambda: before.append(_snapshot(server, file)),
            seconds=asked.seconds / 2,
        )  # fmt: skip
        tally = asyncio.run(run)
        after = _snapshot(server, file)
    each = {name: (now - before[0].get(name, 0.0)) / len(tally.times) * 1e3 for name, now in after.items()}
    for line in _floor.table(each, floor):
        print(line)


def _snapshot(server: Server, file: Path) -> dict[str, float]:
    file.unlink(missing_ok=True)
    server.started.send_signal(signal.SIGUSR1)
    while not file.exists():
        time.sleep(0.05)
    found: dict[str, float] = json.loads(file.read_text())
    return found


@contextlib.contextmanager
def serving(store: str = "", *, workers: int = 1, told: Path | None = None) -> Iterator[Server]:
    """A broker of its own in a process of its own; with `told` the one that writes its CPU times there."""
    with tempfile.TemporaryDirectory() as root:
        folder, port = Path(root) / "broker", _free_port()
        options = {"store": store} if store else {}
        prepare.prepare(folder, Path(root) / "admin.key", port=port, workers=workers, **options)
        argv = ["-m", "casemate", "serve", "--home", str(folder), "--log", str(Path(root) / "log")]
        argv = argv if told is None else ["-m", "bench._served", str(folder), str(told)]
        started = subprocess.Popen([sys.executable, *argv])
        try:
            admin = brokerclient.Admin(f"https://127.0.0.1:{port}", prepare.pin(folder), Path(root) / "admin.key")
            _await(port, started)
            yield Server(_target(port, admin, folder), started)
        finally:
            started.terminate()
            started.wait(30)


def _target(port: int, admin: brokerclient.Admin, folder: Path) -> Target:
    """Found an app whose guests run on the fake chip, whose collateral the broker has, and store its secret."""
    chip = FakeChip()
    kept = collateral.Store.make(load(folder).collateral_store)
    for url, answer in vendors.amd(chip).items():
        kept.put(collateral.entry(url, answer.body, (), datetime.now(UTC)))
    admin.add_anchor(Anchor(certificate=chip.ark.certificate, platform_class="production", name="Fake", tees=("snp",)))
    admin.call("POST", "/tenants/*", {"unsigned_references": True})
    admin.add_reference(ReferenceValues(name="image", tee="snp", values={"measurement": "44" * 48}))
    app = str(admin.found("load", NAME, ("production",))["app_id"])
    manifest = manifests.from_builtins(papers.document(app, admin.pin, name=NAME, resources=(f"kbs:///{PATH}",)))
    admin.add_release(app, manifest.canonical())
    admin.put_resource(app, f"kbs:///{PATH}", SECRET)
    return Target(port, PATH, SECRET, Maker(chip, initdata.document(manifest)))


def _await(port: int, started: subprocess.Popen[bytes]) -> None:
    """Until it takes connections."""
    while started.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"the server ended with {started.returncode}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
