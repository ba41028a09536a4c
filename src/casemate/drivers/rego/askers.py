"""Who holds threads for long: a tenant's guests who wait for its policies, its admins. Each group has a share of them.

Rules
1. A group holds at most a quarter of the threads, or as many as there are evaluators, but never more than half.
2. All groups together hold at most half of the threads; a group that holds none may have one of a further quarter.
3. Whoever finds no room is told so at once (`Crowded`), before anything was done: it waits elsewhere, without a thread.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from casemate.errors import Unavailable


class Crowded(Unavailable):
    """A group holds too many threads. `room` says whether it may try again, `most` how many may."""

    def __init__(self, group: str, most: int, room: Callable[[], bool]) -> None:
        super().__init__("too much of this tenant is under way", hint="try again in a moment")
        self.group, self.most, self.room = group, most, room


class Askers:
    """Those that ask now, by group. `threads` None sets no bound."""

    def __init__(self, threads: int | None, children: int) -> None:
        whole = threads or 0
        self._bounded = threads is not None
        self.each = max(1, whole // 4, min(children, whole // 2))
        self._all, self._last = max(1, whole // 2), max(1, whole - whole // 4)
        self._lock = threading.Lock()
        self._now: Counter[str] = Counter()

    def room(self, group: str) -> bool:
        """Whether one more of this group may ask."""
        mine, whole = self._now[group], self._now.total()
        return not self._bounded or (mine < self.each and whole < (self._all if mine else self._last))

    @contextmanager
    def one(self, group: str, *, own: bool = False) -> Iterator[None]:
        """One that asks; `Crowded`. With `own` it holds a thread that is nobody else's and isn't counted."""
        if own:
            yield
            return
        with self._lock:
            if not self.room(group):
                raise Crowded(group, self.each, lambda: self.room(group))
            self._now[group] += 1
        try:
            yield
        finally:
            with self._lock:
                self._now[group] -= 1
                if not self._now[group]:
                    del self._now[group]
