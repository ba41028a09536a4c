"""The broker's own clockwork: what is due or too much is purged. Several replicas may do it at the same time."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from casemate.broker import approvals, policies, secrets

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

SECONDS = 60.0
PAUSE = 10.0  # between looks at what guests can make much of in a minute
_LOG = logging.getLogger("casemate.sweep")


@contextlib.contextmanager
def begun(broker: Broker) -> Iterator[None]:
    """Sweep in a thread while the block lasts."""
    stop = threading.Event()

    def run() -> None:
        seconds = 0.0
        while not stop.wait(PAUSE):
            seconds += PAUSE
            try:
                policies.sweep(broker)
                if seconds >= SECONDS:
                    seconds = 0.0
                    secrets.sweep(broker)
                    approvals.sweep(broker)
            except Exception as error:  # noqa: BLE001 - the store may be away; the next minute tries again
                _LOG.warning("nothing could be purged: %s", type(error).__name__)

    thread = threading.Thread(target=run, name="casemate sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5)
