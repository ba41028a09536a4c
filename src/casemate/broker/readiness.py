"""Whether this replica can take requests: its store answers and is migrated, its log is written, its policies run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from casemate.errors import CasemateError

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker


def checks(broker: Broker) -> dict[str, bool]:
    """Each check by name; a replica without a part has no check of it."""
    made: dict[str, Callable[[Broker], bool]] = {"store": _store, "migrations": _migrations, "log": _log}
    if getattr(broker, "policies", None) is not None:
        made["policies"] = _policies
    return {name: _holds(check, broker) for name, check in made.items()}


def _holds(check: Callable[[Broker], bool], broker: Broker) -> bool:
    try:
        return check(broker)
    except CasemateError:
        return False


def _store(broker: Broker) -> bool:
    with broker.store.read() as tx:
        return bool(tx.exec_driver_sql("SELECT 1").scalar() == 1)


def _migrations(broker: Broker) -> bool:
    return broker.store.is_current()


def _log(broker: Broker) -> bool:
    return broker.log.alive()


def _policies(broker: Broker) -> bool:
    asked = getattr(getattr(broker, "policies", None), "ready", None)
    return bool(asked()) if callable(asked) else True
