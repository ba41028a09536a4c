"""Rules that hold for reference values of every format: who signed, when, and for what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from casemate.crypto import signatures
from casemate.errors import Finding, Malformed
from casemate.policy.references.trust import ReferenceTrust
from casemate.schema.reference import Reference

LEEWAY = timedelta(minutes=5)  # between two clocks
MAX_REFERENCES = 256
MAX_REGISTERS = 256
_NAME_KEY = "name the signer's key, certificate, did or identity if you believe it (--reference-key)"


@dataclass
class Reading:
    """One reading: whom the relying party believes, when; the references found, and the outcome of each rule.

    Nothing is believed while a rule failed.
    """

    trust: ReferenceTrust
    now: datetime
    references: list[Reference] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, rule: str, expected: str, found: str, hint: str = "", *, ok: bool) -> bool:
        """Note a rule with its outcome, which is returned."""
        self.findings.append(Finding(rule, expected[:512], found[:512], "" if ok else hint, ok))
        return ok

    def extend(self, findings: Iterable[Finding]) -> bool:
        """Note findings of another judge; whether all are ok."""
        added = list(findings)
        self.findings += added
        return all(f.ok for f in added)

    def unsigned(self) -> None:
        """The rule for a document that nobody signed."""
        hint = "have it signed (casemate reference make), or allow unsigned values by name if you made them yourself"
        found = "unsigned (allowed by name)" if self.trust.allow_unsigned else "unsigned"
        self.add("reference.signature", "a signed document", found, hint, ok=self.trust.allow_unsigned)

    def signer(self, name: str, *, threshold: int = 1, count: int = 1) -> None:
        """The rule for a document whose signature was tried with all that the relying party named."""
        ok = bool(name) and count >= threshold
        wanted = "a signature by a named signer" if threshold == 1 else f"signatures by {threshold} named signers"
        found = name or "signed by nobody who is named"
        self.add("reference.signature", wanted, f"{count}: {found}" if threshold > 1 else found, _NAME_KEY, ok=ok)

    def times(self, *, issued: datetime | None, expires: datetime | None, begins: datetime | None = None) -> None:
        """Not from the future, not expired, not older than the relying party allows."""
        now, trust = self.now, self.trust
        at = f"{now:%Y-%m-%dT%H:%M:%SZ}"
        if issued is not None or begins is not None:
            late = max(moment for moment in (issued, begins) if moment is not None)
            hint = "a clock is wrong, or the document is for later"
            self.add("reference.issued", f"before {at}", _shown(late), hint, ok=late <= now + LEEWAY)
        hint = "ask the signer for newer reference values"
        ok = expires is None or now < expires
        self.add("reference.expiry", f"valid at {at}", f"until {_shown(expires)}", hint, ok=ok)
        if trust.max_age is not None:
            ok = issued is not None and now - issued <= trust.max_age
            self.add("reference.age", f"at most {trust.max_age} old", f"issued {_shown(issued)}", hint, ok=ok)

    def scope(self, scope: Mapping[str, str]) -> None:
        """Each limit of the document is what the relying party wants the values for.

        The TEE alone need not be named beforehand: `compare` looks at it in any case.
        """
        for name, value in sorted(scope.items()):
            wanted = self.trust.scope.get(name)
            if wanted is None and name == "tee":
                continue
            ok = wanted == value
            hint = f"these values are for another {name}, or say what you want them for: {name}={value}"
            self.add(f"reference.scope.{name}", wanted or "not said", value, hint, ok=ok)
        if not scope:
            self.add("reference.scope", "what the values are for", "not limited", ok=True)

    def settle(self) -> None:
        """Keep the references whose own scope fits, for documents that hold values of several TEEs or instances.

        When none fits, the rules that each fails are told, and the document is refused.
        """
        fitting = [reference for reference in self.references if self._fits(reference.scope)]
        self.references = fitting or self.references
        for scope in {tuple(sorted(reference.scope.items())) for reference in self.references}:
            self.scope(dict(scope))

    def _fits(self, scope: Mapping[str, str]) -> bool:
        named = self.trust.scope
        return all(named.get(name, value if name == "tee" else "") == value for name, value in scope.items())

    def candidates(self) -> list[tuple[bytes, signatures.PublicKey]]:
        """(SPKI, key) of the named keys, and of named signers' certificates that are valid now."""
        from casemate.crypto import chain

        found = [(der, signatures.load(der)) for der in self.trust.keys]
        for der in self.trust.certificates:
            item = chain.load(der)
            if item.ca is not None and item.ca.ca:
                continue
            usable = item.usage is None or item.usage.digital_signature
            if usable and item.cert.not_valid_before_utc <= self.now <= item.cert.not_valid_after_utc:
                found.append((item.key, signatures.load(item.key)))
        return found


def time(moment: datetime | None) -> datetime | None:
    """The moment, which must have a time zone, in UTC."""
    if moment is not None and moment.tzinfo is None:
        raise Malformed("reference values: a time without a zone")
    return moment.astimezone(UTC) if moment is not None else None


def parse_time(text: object, name: str) -> datetime:
    """An RFC 3339 time."""
    if not isinstance(text, str) or not 20 <= len(text) <= 40 or text[10:11] not in ("T", "t"):
        raise Malformed(f"{name}: not an RFC 3339 time")
    try:
        found = datetime.fromisoformat(text.upper())
        if found.tzinfo is None:
            raise Malformed(f"{name}: a time without a zone")
        return found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{name}: not an RFC 3339 time") from error


def epoch(value: object, name: str) -> datetime:
    """Seconds since 1970 (CBOR tag 1)."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 34:
        raise Malformed(f"{name}: not a time in seconds")
    return datetime.fromtimestamp(value, UTC)


def key_id(spki: bytes) -> str:
    """How a signer's key is named: the pin of its DER SubjectPublicKeyInfo."""
    from casemate.crypto import pins

    return pins.digest(spki)


def _shown(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else "not said"
