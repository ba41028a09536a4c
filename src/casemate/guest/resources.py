"""What the brokers release to this workload: one place that asks, counts the quorum and remembers which broker answers.

The quorum is one for now: the first broker that releases is enough, and a refusal is final only when all refuse. A
manifest that demands more is refused, never served with less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from casemate.errors import Finding, Refused, Unavailable
from casemate.guest.attest import Attester, Resource, Session
from casemate.guest.freshness import Lease
from casemate.release import session as rules
from casemate.schema.manifest import Broker, Manifest

T = TypeVar("T")


class Brokers:
    """The manifest's brokers, in its order."""

    def __init__(
        self, manifest: Manifest, document: bytes, attester: Attester, *, attempts: int = 6, backoff: float = 0.5
    ) -> None:
        _demand_quorum(manifest)
        share = max(1, attempts // len(manifest.brokers))

        def make(broker: Broker) -> Session:
            return Session(broker, document, attester, attempts=share, backoff=backoff)

        self._make = make
        self._brokers = manifest.brokers
        self._sessions = [self._make(broker) for broker in manifest.brokers]

    def login(self) -> None:
        """Attest to the first broker that releases; the others are asked when it falls silent."""
        self._first(lambda session: session.login())

    def resource(self, uri: str) -> bytes:
        """The value of a resource."""
        return self.versioned(uri).value

    def versioned(self, uri: str) -> Resource:
        """The value of a resource and its version."""
        found = self._first(lambda session: session.resource(uri))
        if found is None:
            raise Unavailable(f"{uri}: the broker gave no value")
        return found

    def changed(self, uri: str, known: str) -> Resource | None:
        """The resource when it has another version than `known`, else None."""
        return self._first(lambda session: session.resource(uri, known=known))

    def open_volume(self, name: str, size: int) -> dict[str, Any]:
        """See `Session.open_volume`."""
        return self._first(lambda session: session.open_volume(name, size))

    def volume_initialised(self, name: str, grant: str, document: dict[str, Any]) -> None:
        """See `Session.volume_initialised`; only the broker that gave the grant can take it back."""
        self._sessions[0].volume_initialised(name, grant, document)

    def lease(self) -> Lease:
        """The lease that lasts longest: one broker that releases is enough."""
        return max((session.lease for session in tuple(self._sessions) if session.lease_id), default=Lease())

    def throwaway_token(self) -> str:
        """A token whose key is forgotten at once: it says who this is and opens nothing. It has no lease."""
        session = self._make(self._brokers[0])
        session.lease_id = rules.NO_LEASE  # else the lease would move to this key, away from the one that reads
        try:
            return session.login()
        finally:
            session.close()

    def close(self, *, give_back: bool = False) -> None:
        """Forget all tokens and keys; with `give_back` end the leases too."""
        for session in self._sessions:
            session.close(give_back=give_back)

    def _first(self, ask: Callable[[Session], T]) -> T:
        """The first answer; the broker that gave it is asked first from now on."""
        findings: list[Finding] = []
        silent: Unavailable | None = None
        for session in tuple(self._sessions):
            try:
                answer = ask(session)
            except Unavailable as error:
                silent = silent or error
                continue
            except Refused as error:
                findings += error.findings
                continue
            if session is not self._sessions[0]:
                self._sessions.sort(key=lambda one: one is not session)
            return answer
        if findings:
            raise Refused(findings)
        raise silent or Unavailable("no broker answers")


def _demand_quorum(manifest: Manifest) -> None:
    if manifest.quorum != 1 or manifest.quorum > len(manifest.brokers):
        raise Refused.because(
            "manifest.quorum",
            expected="a quorum of 1",
            found=f"{manifest.quorum} of {len(manifest.brokers)}",
            hint="this guest image can't demand several brokers yet",
        )
