"""How long ago a broker last judged the release: a host that drops packets must not keep a revoked release running.

Two bounds hold: silence of all brokers, and the lease that attesting anew renews. Only the monotonic clock counts, for
the wall clock is the host's word. An answer is as old as its question, and each answer says anew what the broker's own
clock leaves of the lease, so a clock that the host slows down gains nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from casemate.errors import Refused

RULE = "release.fresh"
LEASE = "lease.live"
_ATTESTATIONS = 4  # so many fit into the bound where nothing cheaper can be asked
_RENEWALS = 16  # how often in a lease's time a renewal is tried
_LOOK_SECONDS = 1.0


class Lease(NamedTuple):
    """When a lease ends, when it is to be renewed (monotonic seconds), and how long it was when it was given."""

    ends: float = math.inf
    renew: float = math.inf
    seconds: float = math.inf

    @classmethod
    def given(cls, asked: float, seconds: float) -> Lease:
        """A lease of `seconds`, asked for at `asked`; it is renewed at half."""
        return cls(asked + seconds, asked + seconds / 2, seconds)

    def shortened(self, asked: float, seconds: float) -> Lease:
        """The same lease when a broker says that it has `seconds` left; never longer than it was."""
        ends = min(self.ends, asked + seconds)
        return self if ends == self.ends else self._replace(ends=ends, renew=min(self.renew, ends - seconds / 2))


class Freshness:
    """The bounds on silence (seconds) and on the lease. `lost(refusal)` is called once, when one is over."""

    def __init__(self, seconds: float, lost: Callable[[Refused], None], lease: Callable[[], Lease] = Lease) -> None:
        self._seconds, self._lost, self._lease = seconds, lost, lease
        self._last = self._attested = self._tried = self.now()

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

    def must_renew(self) -> bool:
        """Whether the lease is to be renewed now; a renewal that fails is tried again, not in every round."""
        now, lease = self.now(), self._lease()
        if now < lease.renew or now - self._tried < min(lease.seconds, lease.ends - now) / _RENEWALS:
            return False
        self._tried = now
        return True

    def watch(self, stop: threading.Event) -> None:
        """Wait until `stop`, or until the silence has lasted too long or the lease is over."""
        while (left := min(self._last + self._seconds, self._lease().ends) - self.now()) > 0:
            if stop.wait(min(left, _LOOK_SECONDS)):  # an answer may shorten the lease meanwhile
                return
        silent = self._last + self._seconds <= self.now()
        self._lost(self._silence() if silent else self._over())

    def _silence(self) -> Refused:
        return Refused.because(
            RULE,
            expected=f"an answer of the broker within {self._seconds:g} seconds",
            found="none that says that the release is active",
            hint="let the VM reach a broker of its manifest; a release that nobody can judge does not go on",
        )

    def _over(self) -> Refused:
        return Refused.because(
            LEASE,
            expected="a lease that was renewed before its end",
            found="its time is over",
            hint="see the broker's decisions: what it found when this VM attested anew",
        )
