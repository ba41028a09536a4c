"""A log on a store of its own, without a server; decisions and guests made up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from casemate.broker import log as logs
from casemate.broker.log import Decision, Log
from casemate.broker.settings import Settings
from casemate.broker.vault import Vault
from casemate.drivers.store import Store, record
from casemate.errors import Finding

GOOD = Finding("snp.signature", "a good signature", "a good signature", ok=True)
FIELDS: dict[str, Any] = {
    "app": "sha256:" + "ab" * 32,
    "release": "sha256:" + "cd" * 32,
    "tee": "snp",
    "platform": "production",
    "key": "x" * 43,
    "evidence": "sha256:" + "12" * 32,
    "collateral": "sha256:" + "34" * 32,
    "passed": ["snp.signature", "snp.policy.debug", "release.active", "platform.class"] * 4,
}


@dataclass(frozen=True)
class Bare:
    """What of a broker a log needs: enough for `casemate.broker.receipts` and `journal`."""

    settings: Settings
    store: Store
    vault: Vault
    clock: Callable[[], datetime]
    log: Log

    def close(self) -> None:
        """End the writer and the store."""
        self.log.close()
        self.store.close()

    def decide(self, nonce: str | None = None, *, act: str = "attest", **fields: Any) -> str:
        """One decision, durable; the receipt's id."""
        now = self.clock()
        entry = self.log.pending(act, now, True, {**FIELDS, **fields})
        spends = None if nonce is None else record.Ticket(nonce, int(now.timestamp() * 1000) + 300_000)
        self.log.record(Decision(record.row(now, act, [GOOD], genuine=True, tee="snp"), entry, spends))
        return entry.id


def bare(url: str, master: bytes = bytes(32), clock: Callable[[], datetime] | None = None) -> Bare:
    """A log on a database, migrated and begun as needed."""
    settings, store, vault = Settings(folder=Path("/nowhere"), store=url), Store(url), Vault(master)
    store.migrate()
    now = clock or (lambda: datetime.now(UTC))
    return Bare(settings, store, vault, now, logs.build(store, vault, now))


@contextmanager
def opened(url: str, **options: Any) -> Iterator[Bare]:
    """`bare`, closed at the end."""
    made = bare(url, **options)
    try:
        yield made
    finally:
        made.close()


def nonce() -> str:
    """A nonce of its own."""
    return os.urandom(32).hex()
