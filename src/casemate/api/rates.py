"""How often and how much at once.

A token bucket a peer for those who have not shown who they are, and a bound on requests under way for everybody.

Rules
1. A request costs its peer one token, unless its credentials opened a session or proved an admin for this very
   request: what merely looks like credentials costs what none cost, so guessing is as slow as asking.
2. A peer without a token left is told 429 and when to come back, before anything is read or computed for him.
3. One peer gets a share of all requests in flight (`casemate.api.peers`); beyond it 429, beyond the whole 503.
4. The table of peers is bounded; who was not seen for longest is forgotten first.

Each worker process counts for itself, so settings are divided by their number.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

from casemate.api import peers

MAX_PEERS = 65536


class Buckets:
    """`rate` tokens a second up to `burst` for each peer; rate 0 sets no bound."""

    def __init__(self, rate: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, float(max(1, burst)), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, who: str) -> int:
        """0 when the peer has a token left, else whole seconds until it has."""
        left = self._now(who)
        return 0 if self._rate <= 0 or left >= 1 else max(1, math.ceil((1 - left) / self._rate))

    def take(self, who: str) -> None:
        """Take a token; what was not there is owed, up to one burst."""
        if self._rate <= 0:
            return
        self._left[who] = (max(-self._burst, self._now(who) - 1), self._clock())
        self._left.move_to_end(who)
        if len(self._left) > MAX_PEERS:
            self._left.popitem(last=False)

    def _now(self, who: str) -> float:
        left, then = self._left.get(who, (self._burst, self._clock()))
        return min(self._burst, left + (self._clock() - then) * self._rate)


class Flight:
    """Requests under way, all and by peer."""

    def __init__(self, most: int) -> None:
        self._most, self.now = most, 0
        self._held: dict[str, int] = {}

    def begin(self, who: str) -> str:
        """Count a request in; or why not: `peer` or `all`. Only what was counted in is to be ended."""
        if self.now >= self._most:
            return "all"
        if self._held.get(who, 0) >= peers.share(who, self._most):
            return "peer"
        self.now += 1
        self._held[who] = self._held.get(who, 0) + 1
        return ""

    def end(self, who: str) -> None:
        """Count it out."""
        self.now -= 1
        self._held[who] -= 1
        if not self._held[who]:
            del self._held[who]


def exempt(networks: tuple[str, ...]) -> Callable[[str | None], bool]:
    """Whether an address is in one of the networks that no rate is set for (a balancer, a monitor)."""
    known = [ipaddress.ip_network(network) for network in networks]

    @lru_cache(maxsize=4096)
    def asked(address: str | None) -> bool:
        try:
            found = ipaddress.ip_address((address or "").partition("%")[0])
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
            found = found.ipv4_mapped
        return any(found in network for network in known)

    return asked
