"""Many guests on one machine: keep-alive HTTPS connections of their own, evidence of a fake SEV-SNP chip.

A report is signed anew for each handshake, because it answers that handshake's nonce; its other bytes, the chain and
the JSON around them are made once. The CPU time of this process is therefore the guests' share.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import rfc8785
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from casemate.crypto import jwe, jwk
from casemate.schema.request import Request
from casemate.tee.snp import wire
from casemate.tee.snp.report import SIGNED
from casemate.testing.snp import FakeChip

OPENED = 16  # one answer of so many is opened, to see that it is the secret
_PATIENCE = 60.0
_REPORT_DATA = 0x50  # where the field stands in a report
_ASK = json.dumps({"version": "0.4.0", "tee": "snp", "extra-params": ""}).encode()


class Wrong(Exception):
    """An answer that no guest should get."""


class Maker:
    """Attestation messages of one chip and one initdata document."""

    def __init__(self, chip: FakeChip, initdata: bytes) -> None:
        marks = bytes([251]) * 64, bytes([252]) * 72, bytes([253]) * 72
        digest = hashlib.sha256(initdata).digest()
        report = chip.report(Request(report_data=marks[0], initdata_digest=digest))
        self._signed, self._key = report[:SIGNED], chip.key
        shown = report[:SIGNED] + marks[1] + marks[2] + report[SIGNED + 144 :]
        message = {
            "init-data": {"format": "toml", "body": initdata.decode()},
            "runtime-data": "@runtime@",
            "tee-evidence": {"primary_evidence": wire.to_json(shown, chip.chain), "additional_evidence": ""},
        }
        text, shapes = json.dumps(message), [json.dumps(list(mark)) for mark in marks]
        self._order = sorted(range(len(shapes)), key=lambda place: text.index(shapes[place]))
        self._parts: list[str] = []
        for mark in ('"@runtime@"', *(shapes[place] for place in self._order)):
            before, _, text = text.partition(mark)
            self._parts.append(before)
        self._parts.append(text)

    def message(self, nonce: str, key: dict[str, Any]) -> bytes:
        """The body of `/attest` for this nonce and this guest's key."""
        runtime: dict[str, Any] = {"nonce": nonce, "tee-pubkey": key}
        bound = rfc8785.dumps({"additional-evidence": "", **runtime})
        data = hashlib.sha384(bound).digest().ljust(64, b"\0")
        body = self._signed[:_REPORT_DATA] + data + self._signed[_REPORT_DATA + 64 :]
        r, s = decode_dss_signature(self._key.sign(body, ec.ECDSA(hashes.SHA384())))
        fresh = [list(data), *(list(n.to_bytes(48, "little").ljust(72, b"\0")) for n in (r, s))]
        filled = [json.dumps(runtime), *(json.dumps(fresh[place]) for place in self._order)]
        pieces = [p for pair in zip(self._parts, filled, strict=False) for p in pair]
        return "".join([*pieces, self._parts[-1]]).encode()


class Connection:
    """One guest's connection."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port, self._context = port, context
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, path: str, body: bytes = b"", extra: str = "") -> tuple[dict[str, str], bytes]:
        """Headers (names in lower case) and body of a 200."""
        if self._stream is None:
            made = asyncio.open_connection("127.0.0.1", self._port, ssl=self._context, limit=1 << 20)
            self._stream = await asyncio.wait_for(made, _PATIENCE)
        reader, writer = self._stream
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        writer.write(head.encode() + body)
        first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        told = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        content = await reader.readexactly(int(told.get("content-length", "0")))
        if first.split()[1] != "200":
            raise Wrong(f"{method} {path}: {first} {content[:300]!r}")
        return told, content

    def close(self) -> None:
        """Drop it."""
        if self._stream is not None:
            self._stream[1].transport.abort()


@dataclass
class Tally:
    """What came of a run: milliseconds of each act, seconds in all, CPU seconds of the guests."""

    times: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Acts a second as they happened."""
        return len(self.times) / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds that `share` of the acts took at most."""
        return sorted(self.times)[min(len(self.times) - 1, int(len(self.times) * share))]


@dataclass(frozen=True)
class Target:
    """A broker with one app: where, its resource, the secret in it, and who makes evidence for it."""

    port: int
    path: str
    secret: bytes
    maker: Maker


class Guest:
    """One of the clients."""

    def __init__(self, target: Target, context: ssl.SSLContext) -> None:
        self.target, self.connection = target, Connection(target.port, context)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._count, self._bearer = 0, ""

    async def handshake(self) -> None:
        """Challenge, attestation, one resource with the token; a key of its own each time."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        head, body = await self.connection.call("POST", "/kbs/v0/auth", _ASK)
        message = self.target.maker.message(json.loads(body)["nonce"], jwk.from_public_key(self._key.public_key()))
        cookie = f"Cookie: {head['set-cookie'].split(';')[0]}\r\n"
        _, body = await self.connection.call("POST", "/kbs/v0/attest", message, cookie)
        self._bearer = f"Authorization: Bearer {json.loads(body)['token']}\r\n"
        await self.read()

    async def read(self) -> None:
        """One resource with the token at hand."""
        _, body = await self.connection.call("GET", f"/kbs/v0/resource/{self.target.path}", extra=self._bearer)
        self._count += 1
        if self._count % OPENED == 1 and jwe.open_(json.loads(body), self._key) != self.target.secret:
            raise Wrong("another secret than the one that was stored")


async def crowd(
    target: Target,
    clients: int,
    act: Callable[[Guest], Awaitable[None]],
    *,
    ready: Callable[[], None] = lambda: None,
    seconds: float = 0.0,
    count: int = 0,
    look: Callable[[int], None] = lambda done: None,
) -> Tally:
    """`clients` guests do `act` for so many seconds, or until `count` are done, after one handshake each.

    `ready` is called when the time begins, `look` after each act with the number that are done.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    guests = [Guest(target, context) for _ in range(clients)]
    await asyncio.gather(*(guest.handshake() for guest in guests))
    ready()
    tally, begun, spent = Tally(), time.perf_counter(), time.process_time()

    async def work(guest: Guest) -> None:
        while (count and len(tally.times) < count) or (not count and time.perf_counter() - begun < seconds):
            start = time.perf_counter()
            await asyncio.wait_for(act(guest), _PATIENCE)
            tally.times.append((time.perf_counter() - start) * 1000)
            look(len(tally.times))

    await asyncio.gather(*(work(guest) for guest in guests))
    tally.seconds, tally.cpu = time.perf_counter() - begun, time.process_time() - spent
    for guest in guests:
        guest.connection.close()
    return tally
