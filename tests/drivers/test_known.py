"""What is remembered of a store is never older than the transaction that it is used in."""

from __future__ import annotations

from datetime import UTC, datetime

from casemate.drivers.store import Store, policies, registry
from casemate.schema.app import Founding
from casemate.schema.endorsements import Anchor
from casemate.schema.reference import ReferenceValues

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FOUNDING = Founding(tenant="t", name="web", founded="2026-06-01T00:00:00Z", salt="00" * 16)
DIGEST = "sha256:" + "ab" * 32


def test_every_write_of_what_is_remembered_is_seen_by_another_process_at_once(tmp_path):
    one, other = (Store(f"sqlite:///{tmp_path}/store.db") for _ in range(2))
    one.migrate()
    where = ("t", "resource", "resource-policy")
    acts = [
        lambda tx: registry.found(tx, FOUNDING, ("production",), NOW),
        lambda tx: registry.allow(tx, FOUNDING.app_id, ("development",)),
        lambda tx: registry.add_release(tx, FOUNDING.app_id, DIGEST, b"{}", NOW),
        lambda tx: registry.revoke_release(tx, FOUNDING.app_id, DIGEST, NOW),
        lambda tx: registry.add_anchor(tx, Anchor(certificate=b"c", platform_class="production", name="x"), NOW),
        lambda tx: registry.add_reference(tx, ReferenceValues(name="i", tee="snp", values={"m": "0"}), NOW),
        lambda tx: policies.put(tx, where, "package policy", digest=DIGEST, who="local", now=NOW),
    ]
    for number, act in enumerate(acts):
        assert _asked(other, number) == number
        assert _asked(other, -1) == number  # remembered
        with one.write() as tx:
            act(tx)
            assert _asked(other, -1) == number  # until it is committed
    assert _asked(other, len(acts)) == len(acts)
    one.close()
    other.close()


def test_a_write_that_is_taken_back_changes_nothing(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    store.migrate()
    assert _asked(store, 1) == 1
    try:
        with store.write() as tx:
            registry.allow(tx, DIGEST, ("production",))
            raise KeyError
    except KeyError:
        pass
    assert _asked(store, 2) == 1
    store.close()


def _asked(store: Store, answer: int) -> int:
    with store.read() as tx:
        return store.known.at(tx).get("question", lambda: answer)
