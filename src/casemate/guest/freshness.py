"""How long ago a broker last judged the release: a host that drops packets must not keep a revoked release running.

Only the monotonic clock counts, because the wall clock is the host's word. An answer is as old as its question.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from casemate.errors import Refused

RULE = "release.fresh"
_ATTESTATIONS = 4  # so many fit into the bound where nothing cheaper can be asked


class Freshness:
    """The bound on silence, seconds. `lost(refusal)` is called once, when it is over."""

    def __init__(self, seconds: float, lost: Callable[[Refused], None]) -> None:
        self._seconds, self._lost = seconds, lost
        self._last = self._attested = self.now()

    @staticmethod
    def now() -> float:
        """Seconds of the monotonic clock: take it before a question is asked."""
        return time.monotonic()

    def confirm(self, asked: float) -> None:
        """A broker found the release active, asked at `asked`."""
        self._last = max(self._last, asked)

    def may_attest(self) -> bool:
        """Whether it is time to attest anew, the dearer way to ask; true at most a few times within the bound."""
        now = self.now()
        if now - max(self._attested, self._last) < self._seconds / _ATTESTATIONS:
            return False
        self._attested = now
        return True

    def watch(self, stop: threading.Event) -> None:
        """Wait until `stop`, or until the silence has lasted too long."""
        while (left := self._last + self._seconds - self.now()) > 0:
            if stop.wait(left):
                return
        self._lost(
            Refused.because(
                RULE,
                expected=f"an answer of the broker within {self._seconds:g} seconds",
                found="none that says that the release is active",
                hint="let the VM reach a broker of its manifest; a release that nobody can judge does not go on",
            )
        )
