"""The list of rules that a room's `verify` applies: all of them are applied and told, whatever the first one says.

Two kinds: a failed *check* means that the evidence is not believed; a failed *caution* is a fact about genuine evidence
that a relying party may accept by the rule's name (`casemate.policy.platform`), such as a debuggable guest.
"""

from __future__ import annotations

import hmac

from casemate.errors import Finding, Refused, Unusable

SHOWN = 100
_LONGEST = 2 * SHOWN


class Rules:
    """Collects findings. `tee` is the prefix of every rule's name."""

    def __init__(self, tee: str) -> None:
        self._tee = tee
        self._prefix = f"{tee}."
        self.checks: list[Finding] = []
        self.cautions: list[Finding] = []

    def check(self, rule: str, ok: bool, expected: object, found: object, hint: str = "") -> bool:
        """Note a rule about genuineness; returns `ok`."""
        # Mostly short text already: the calls that are saved here count, there are a dozen for each evidence.
        if type(expected) is not str or len(expected) > _LONGEST:
            expected = _short(expected)
        if type(found) is not str or len(found) > _LONGEST:
            found = _short(found)
        self.checks.append(Finding(self._prefix + rule, expected, found, "" if ok else hint, ok))
        return ok

    def caution(self, rule: str, ok: bool, expected: object, found: object, hint: str = "") -> bool:
        """Note a rule about a property; returns `ok`."""
        self.check(rule, ok, expected, found, hint)
        if not ok:
            self.cautions.append(self.checks.pop())
        return ok

    def equal(self, rule: str, expected: bytes, found: bytes, hint: str = "") -> bool:
        """Check two byte strings in constant time, shown as hex."""
        return self.check(rule, hmac.compare_digest(expected, found), _hex(expected), _hex(found), hint)

    def register(self, rule: str, expected: bytes, found: bytes, hint: str = "", *, size: int | None = None) -> bool:
        """Check a fixed-size register that holds `expected` and zeros behind it.

        A value too long is never cut; an empty one, or one that has not `size` bytes, never matches the zeros.
        """
        if not 1 <= len(expected) <= len(found) or (size is not None and len(expected) != size):
            wanted = f"{size} bytes" if size is not None else f"1 to {len(found)} bytes"
            return self.check(rule, False, wanted, f"{len(expected)} bytes were asked for", hint)
        return self.equal(rule, expected.ljust(len(found), b"\0"), found, hint)

    def initdata(self, expected: bytes, found: bytes, hint: str = "") -> bool:
        """Check a register that binds an initdata document: zeros behind a shorter digest, a longer one is cut.

        That is CoCo's rule (kata-containers, initdata): SHA-256, SHA-384, SHA-512 or SM3 in what the TEE has. What is
        left of a digest is never under 32 bytes.
        """
        if len(expected) not in (32, 48, 64) or len(found) < 32:
            return self.check("initdata", False, "a digest of 32, 48 or 64 bytes", f"{len(expected)} bytes", hint)
        return self.equal("initdata", expected[: len(found)].ljust(len(found), b"\0"), found, hint)

    def add(self, findings: list[Finding]) -> None:
        """Take over checks that a wall has made, names included."""
        self.checks += findings

    @property
    def failed(self) -> bool:
        """Whether a check has failed."""
        return not all([f.ok for f in self.checks])  # noqa: C419 - a list is faster than a generator here

    def settle(self, absent: str) -> None:
        """Raise `Unusable` when all failed checks are about absent things (rules that start with `absent`).

        Raise `Refused` when others have failed, and nothing when none has.
        """
        failed = [f for f in self.checks if not f.ok]
        if failed and all(f.rule.startswith(f"{self._tee}.{absent}") for f in failed):
            names = ", ".join(f.rule.removeprefix(f"{self._tee}.{absent}") for f in failed)
            raise Unusable(f"{self._tee}: cannot be judged without {names}", hint=failed[0].hint)
        if failed:
            raise self.refusal()

    def refusal(self) -> Refused:
        """The error to raise, with every finding."""
        return Refused([*self.checks, *self.cautions])


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _hex(data: bytes) -> str:
    return data.hex() if len(data) <= SHOWN else data[:SHOWN].hex() + f"... ({len(data)} bytes)"
