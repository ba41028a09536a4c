"""Which endorsement key stands behind a report: VEK, ASK and ARK by name, and the walk from one to the other.

A path that was found good is good for every time between the latest beginning and the earliest end of its certificates
and lists. All reports of one chip and TCB come with the same ones: so it is remembered by their bytes, by the anchors,
and for that period. What failed is judged anew each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from casemate.crypto import chain
from casemate.crypto.chain import Certificate, Path
from casemate.errors import Finding, Malformed
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.tee.roots import Root, trusted
from casemate.tee.rules import Rules
from casemate.tee.snp import vek
from casemate.tee.snp.vek import Vek

NAME = "snp"
_HINT = "fetch AMD's certificates: casemate collateral fetch"
_KINDS = frozenset({"VCEK", "VLEK", "ASK", "ARK"})
_REMEMBERED = 256


class _Given(NamedTuple):
    """What a path depends on beside the time: certificates, revocation lists, the vendor's pins, the anchors."""

    pool: tuple[bytes, ...]
    crls: tuple[bytes, ...]
    pins: tuple[tuple[str, str], ...]
    anchors: tuple[Anchor, ...]


class _Good(NamedTuple):
    """A path without a fault, the checks that say so, and when it has none. Nobody changes it."""

    key: Vek
    path: Path
    root: Root
    checks: tuple[Finding, ...]
    since: datetime
    until: datetime


_GOOD: dict[_Given, _Good] = {}


def key(
    sent: list[tuple[str, bytes]], endorsements: Endorsements, now: datetime, rules: Rules, pins: Mapping[str, str]
) -> tuple[Vek | None, Path | None, Root | None]:
    """The endorsement key, its path and its root, judged as far as the certificates reach."""
    pool = tuple(dict.fromkeys([*(d for kind, d in sent if kind in _KINDS), *endorsements.certificates]))
    # A list that the attester sends is left aside: it would choose one that spares it.
    crls = tuple([d for name, d in endorsements.collateral.items() if name.endswith(".crl")])
    given = _Given(pool, crls, tuple(pins.items()), endorsements.anchors_for(NAME))
    known = _GOOD.get(given)
    if known is not None and known.since <= now <= known.until:
        rules.add(list(known.checks))
        return known.key, known.path, known.root
    before = len(rules.checks)
    found, path, root = _judged(given, endorsements, now, rules, pins)
    checks = tuple(rules.checks[before:])
    if found is not None and path is not None and root is not None and all(f.ok for f in checks):
        since, until = _period(path, crls)
        if since <= now <= until:
            while len(_GOOD) >= _REMEMBERED:
                _GOOD.pop(next(iter(_GOOD)), None)
            _GOOD[given] = _Good(found, path, root, checks, since, until)
    return found, path, root


def _period(path: Path, crls: Sequence[bytes]) -> tuple[datetime, datetime]:
    """From when until when every certificate of a path and every list beside it is current."""
    lists = [chain.load_crl(der) for der in crls]
    since = max([*(link.validity[0] for link in path.links), *(one.last_update_utc for one in lists)])
    ends = [one.next_update_utc for one in lists if one.next_update_utc is not None]
    return since, min([*(link.validity[1] for link in path.links), *ends])


def _judged(
    given: _Given, endorsements: Endorsements, now: datetime, rules: Rules, pins: Mapping[str, str]
) -> tuple[Vek | None, Path | None, Root | None]:
    pool, crls = given.pool, given.crls
    try:
        loaded = {der: chain.load(der) for der in pool}
        leaf = next((d for d in pool if vek.kind_of(loaded[d])), None)
        if leaf is None:
            rules.check("certificates.vek", False, "the VCEK or VLEK certificate", "absent", _HINT)
            return None, None, None
        roots = trusted(NAME, pins, pool, endorsements)
        if not roots and not any(c.names[0] == c.names[1] for c in loaded.values()):
            rules.check("certificates.ark", False, "AMD's root certificate (ARK)", "absent", _HINT)
        links = [leaf, *_authorities(loaded, leaf)][: chain.MAX_LENGTH]
        path = chain.walk(links, [r.certificate for r in roots], now, rule="snp.vek", leaf_usages=None, crls=crls)
    except Malformed as error:
        rules.check("vek.chain", False, "X.509 certificates", error, "the certificates were changed")
        return None, None, None
    absent = not roots and rules.failed
    rules.add([f for f in path.findings if not (absent and f.rule == "snp.vek.chain")])
    root = roots[path.root] if path.root is not None else None
    if root is not None and not path.findings:
        rules.check("vek.chain", True, "a path to a trusted root", root.name)
    if crls:
        # AMD's lists are of the ARK: they name intermediates. A VEK is retired by its TCB.
        rules.check("vek.revocation", path.revocation != "not checked", "a list of a certificate's issuer",
                    path.revocation, "the list is another product's")  # fmt: skip
    try:
        return vek.read(leaf), path, root
    except Malformed as error:
        rules.check("vek.format", False, "a VCEK or VLEK certificate", error)
        return None, path, root


def _authorities(loaded: dict[bytes, Certificate], leaf: bytes) -> list[bytes]:
    """The authorities above `leaf` by name; the pool may hold those of every product."""
    authorities = {d: c.names for d, c in loaded.items() if c.ca is not None and c.ca.ca}
    wanted = {loaded[leaf].names[1]}
    for _ in range(2):
        wanted |= {issuer for subject, issuer in authorities.values() if subject in wanted}
    return [d for d, (subject, _) in authorities.items() if subject in wanted]
