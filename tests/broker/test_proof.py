"""The digests of evidence and collateral are those that a stranger computes by RFC 8785."""

from __future__ import annotations

import hashlib

import rfc8785

from casemate.broker import proof
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.schema.evidence import Evidence


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_evidence():
    primary = {"\U00010000": 1, "\uffff": 2, "a": [1, 2, 255], "\x7f": '\x00\x1f\u2028\\"/', "f": 1.5}
    whole = {"tee": "snp", "primary": primary, "additional": "x", "initdata": _digest(b"doc")}
    told = Evidence(tee="snp", primary=primary, additional="x", initdata=b"doc")
    assert proof.evidence(told) == _digest(rfc8785.dumps(whole))


def test_collateral():
    def wanted(found: Endorsements) -> str:
        whole = {
            "anchors": sorted(_digest(anchor.certificate) for anchor in found.anchors),
            "certificates": sorted(map(_digest, found.certificates)),
            "collateral": {name: _digest(one) for name, one in found.collateral.items()},
        }
        return _digest(rfc8785.dumps(whole))

    anchor = Anchor(certificate=b"z")
    first = Endorsements(certificates=(b"b", b"a"), collateral={"x.crl": b"1"})
    for found in (
        first,
        Endorsements(anchors=(anchor,), certificates=(b"b", b"a"), collateral={"x.crl": b"1"}),
        Endorsements(certificates=(b"b", b"a"), collateral={"x.crl": b"2"}),
        Endorsements(certificates=(b"b",), collateral={"x.crl": b"1"}),
        Endorsements(certificates=(b"b", b"a"), collateral={"y.crl": b"1"}),
        first,
    ):
        assert proof.collateral(found) == wanted(found)
