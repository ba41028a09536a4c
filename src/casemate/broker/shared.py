"""Keys that all replicas on one store use, sealed under the master key; the first replica makes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import exc

from casemate.broker.vault import Vault
from casemate.drivers.store import Store, record


def label(name: str) -> str:
    """What a sealed key is bound to at rest."""
    return f"key:{name}"


def shared(store: Store, vault: Vault, name: str, make: Callable[[], bytes], now: datetime) -> bytes:
    """A key that all replicas on this store use; the first one makes it."""
    for _ in range(2):
        with store.read() as tx:
            sealed = record.key(tx, name)
        if sealed is not None:
            return vault.open(label(name), sealed)
        try:
            with store.write() as tx:
                record.add_key(tx, name, vault.seal(label(name), make()), now)
        except exc.IntegrityError:
            continue
    with store.read() as tx:
        return vault.open(label(name), record.key(tx, name) or b"")
