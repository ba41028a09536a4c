"""The broker of a local trust domain: a detached child on a port that stays the same, because manifests name it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from casemate.broker import prepare
from casemate.broker.settings import FILE
from casemate.drivers import brokerclient, daemons
from casemate.errors import CasemateError

FOLDER = "broker"
GUEST_HOST = "10.0.2.2"  # the host as a guest on QEMU's user network sees it


class Local(NamedTuple):
    """A running local broker: its URL for this host, for guests, its pin, pid and the admin's key."""

    url: str
    guest_url: str
    pin: str
    pid: int
    admin_key: Path


def start(home: Path) -> Local:
    """The running broker of `home`, made, started or repaired as needed."""
    folder, admin_key = home / FOLDER, home / prepare.ADMIN_KEY
    port = {} if (folder / FILE).exists() else {"port": daemons.free_port()}
    names = ("localhost", "127.0.0.1", GUEST_HOST)
    chosen = {"names": names, "console": True, "guest_reasons": "full"} if port else {}
    settings = prepare.prepare(folder, admin_key, **port, **chosen)
    url, pin = f"https://127.0.0.1:{settings.port}", prepare.pin(folder)
    argv = [sys.executable, "-m", "casemate", "serve", "--home", str(folder), "--log", str(folder / "broker.log")]
    running = daemons.ensure(folder, argv, lambda: answers(url, pin), name="broker")
    return Local(url, f"https://{GUEST_HOST}:{settings.port}", pin, running.pid, admin_key)


def stop(home: Path) -> bool:
    """End the broker of `home`; False when none ran."""
    return daemons.stop(home / FOLDER)


def answers(url: str, pin: str) -> bool:
    """Whether the broker with that pin answers at `url`."""
    try:
        return brokerclient.info(url, pin, timeout=2).get("key_pin") == pin
    except CasemateError:
        return False
