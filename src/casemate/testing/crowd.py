"""Many guests and admins at once, over connections of their own, who write down all that a broker acknowledged.

They go on when a connection breaks, and remember when. `faults` is what no broker may do, however often it is killed:
a server error, a nonce accepted twice, an acknowledged receipt or secret that is missing.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

from casemate.crypto import jwe, pins
from casemate.drivers.brokerclient import Admin
from casemate.schema.manifest import Manifest
from casemate.testing.broker import Guest
from casemate.testing.tpm import FakeVendor

_PATIENCE = 30.0
_BROKEN = (OSError, EOFError, asyncio.TimeoutError, ssl.SSLError)


class Broken(Exception):
    """A connection ended before the answer was there."""


class Break(NamedTuple):
    """When a connection was asked for and when it broke, by the machine's monotonic clock."""

    opened: float
    broke: float
    why: str


class Answer(NamedTuple):
    """An HTTP answer; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Acknowledged:
    """What a broker has said, and must stand by."""

    secrets: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    receipts: set[str] = field(default_factory=set)
    checkpoints: set[str] = field(default_factory=set)
    accepted: Counter[str] = field(default_factory=Counter)
    refused_replays: int = 0
    breaks: list[Break] = field(default_factory=list)
    unavailable: int = 0
    faults: list[str] = field(default_factory=list)


class Wire:
    """One client's connection, opened anew when it broke. HTTP/1.1 with lengths is all that a broker speaks."""

    def __init__(self, port: int, pin: str, seen: Acknowledged) -> None:
        self._port, self._pin, self._seen = port, pin, seen
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._opened = 0.0

    async def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """One request; `Broken` when its answer did not come."""
        try:
            return await asyncio.wait_for(self._call(method, path, body, headers), _PATIENCE)
        except _BROKEN as error:
            self.drop()
            self._seen.breaks.append(Break(self._opened, time.monotonic(), f"{method} {path}: {error!r}"))
            raise Broken from error

    def drop(self) -> None:
        """Close the connection."""
        if self._stream is not None:
            self._stream[1].transport.abort()
            self._stream = None

    async def _call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        if self._stream is None:
            self._opened = time.monotonic()
            self._stream = await asyncio.open_connection("127.0.0.1", self._port, ssl=_context(), limit=1 << 20)
            secured = self._stream[1].get_extra_info("ssl_object")
            if pins.certificate_pin(secured.getpeercert(binary_form=True)) != self._pin:
                self._seen.faults.append("a connection to another key")
        reader, writer = self._stream
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        told = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        content = await reader.readexactly(int(told.get("content-length", "0")))
        if told.get("connection", "").lower() == "close":
            self.drop()
        return Answer(int(first.split()[1]), told, content)


class Crowd:
    """Guests of one app and admins of its secrets, against the broker (or the proxy) on `port`."""

    def __init__(
        self, port: int, admin: Admin, app: str, manifest: Manifest, path: str, *, vendor: FakeVendor, guests: int = 6
    ) -> None:
        self.seen = Acknowledged()
        self._port, self._admin, self._app, self._manifest, self._path = port, admin, app, manifest, path
        self._service: Any = SimpleNamespace(vendor=vendor)
        self._guests, self._values = guests, {b"first"}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="crowd")

    def __enter__(self) -> Crowd:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let everybody finish what is under way."""
        self._ending.set()
        self._thread.join(3 * _PATIENCE)
        if self._thread.is_alive():
            self.seen.faults.append("the crowd hangs")

    async def _run(self) -> None:
        tees = itertools.cycle(("sample", "sample", "tpm"))
        guests = [self._forever(self._guest, next(tees)) for _ in range(self._guests)]
        await asyncio.gather(*guests, self._forever(self._writer, "a"), self._forever(self._writer, "b"), self._watch())

    async def _forever(self, act: Callable[..., Any], name: str) -> None:
        wire = Wire(self._port, self._admin.pin, self.seen)
        for number in itertools.count():
            if self._ending.is_set():
                break
            try:
                await act(wire, name, number)
            except Broken:
                await asyncio.sleep(0.02)
            except Exception as error:  # noqa: BLE001 - a test's finding, told with the others
                self.seen.faults.append(f"{act.__name__} {name}: {error!r}")
                await asyncio.sleep(0.1)
        wire.drop()

    async def _guest(self, wire: Wire, tee: str, number: int) -> None:
        """A handshake, one secret, now and then the same evidence again."""
        guest = Guest(self._service, self._manifest, tee=tee)
        asked = await wire.call("POST", "/kbs/v0/auth", _json({"version": "0.4.0", "tee": tee, "extra-params": {}}))
        if not self._expected("auth", asked, 200):
            return
        guest.nonce, cookie = str(json.loads(asked.body)["nonce"]), asked.headers["set-cookie"].split(";")[0]
        body = _json(guest.body())
        try:
            got = await wire.call("POST", "/kbs/v0/attest", body, Cookie=cookie)
        except Broken:
            await self._again(wire, guest.nonce, body, cookie)  # was it recorded? At most once, in any case
            return
        if not self._expected("attest", got, 200):
            return
        self._accepted(guest.nonce, got)
        if random.random() < 0.2:  # noqa: S311 - not a secret
            await self._again(wire, guest.nonce, body, cookie)
        bearer = f"Bearer {json.loads(got.body)['token']}"
        read = await wire.call("GET", f"/kbs/v0/resource/{self._path}", Authorization=bearer)
        if self._expected("resource", read, 200):
            self.seen.receipts.add(read.headers["casemate-receipt"])
            if jwe.open_(json.loads(read.body), guest.key) not in self._values:
                self.seen.faults.append("a secret that nobody put there")
            await self._receipt(wire, read.headers["casemate-receipt"])

    async def _again(self, wire: Wire, nonce: str, body: bytes, cookie: str) -> None:
        got = await wire.call("POST", "/kbs/v0/attest", body, Cookie=cookie)
        if got.status == 200:
            self._accepted(nonce, got)
        elif self._expected("replay", got, 401):
            self.seen.refused_replays += 1

    def _accepted(self, nonce: str, got: Answer) -> None:
        self.seen.receipts.add(got.headers["casemate-receipt"])
        self.seen.accepted[nonce] += 1
        if self.seen.accepted[nonce] > 1:
            self.seen.faults.append(f"nonce {nonce} was accepted twice")

    async def _receipt(self, wire: Wire, number: str) -> None:
        found = await wire.call("GET", f"/casemate/v0/receipts/{number}")
        if self._expected("receipt", found, 200):
            self.seen.checkpoints.add(json.loads(found.body)["checkpoint"])

    async def _writer(self, wire: Wire, name: str, number: int) -> None:
        """New secrets, and new versions of the one that guests read."""
        path, value = f"crowd{name}/k/{number}", f"{name}{number}".encode()
        if number % 4 == 0:
            path, value = self._path, f"shared {name}{number}".encode()
            self._values.add(value)
        bearer, query = f"Bearer {self._admin.token()}", f"?app={self._app.replace(':', '%3A')}"
        put = await wire.call("POST", f"/kbs/v0/resource/{path}{query}", value, Authorization=bearer)
        if self._expected("put", put, 200):
            version = int(json.loads(put.body)["version"])
            if version > self.seen.secrets.get(path, (0, b""))[0]:
                self.seen.secrets[path] = (version, value)
        await asyncio.sleep(0.01)

    async def _watch(self) -> None:
        await self._forever(self._look, "checkpoint")

    async def _look(self, wire: Wire, name: str, number: int) -> None:
        got = await wire.call("GET", "/casemate/v0/log/checkpoint")
        if self._expected(name, got, 200):
            self.seen.checkpoints.add(got.body.decode())
        await asyncio.sleep(0.03)

    def _expected(self, what: str, got: Answer, status: int) -> bool:
        if got.status == status:
            return True
        if got.status == 503:
            self.seen.unavailable += 1  # the store is away: a caller's judgement whether that was to be
        else:
            self.seen.faults.append(f"{what}: {got.status} {got.body[:300].decode('utf-8', 'replace')}")
        return False


def _context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE  # the pin is what counts, as for guests
    return made


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
