"""Reference values: CoRIM, in-toto in DSSE, endorsements of utility VMs, our own document."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from fuzz.target import One, target


@cache
def _publisher() -> Any:
    from casemate.testing.references import Publisher

    return Publisher()


def _reader() -> One:
    from casemate.policy.references import door

    publisher = _publisher()
    trust = replace(publisher.trust, allow_unsigned=True)
    return lambda data: door.inspect(data, trust, publisher.now)


def _corim() -> Iterable[bytes]:
    yield _publisher().corim()
    yield _publisher().corim("unsigned")


@target("corim", _corim)
def corim() -> One:
    """Signed and unsigned CoRIM."""
    return _reader()


def _documents() -> Iterable[bytes]:
    yield _publisher().provenance()
    yield _publisher().provenance(version=0)
    yield _publisher().plain()
    yield _publisher().plain(as_jws=True)


@target("reference-json", _documents, longest=65536)
def reference_json() -> One:
    """DSSE with in-toto provenance, and our own signed JSON."""
    return _reader()


@target("uvm-endorsement", lambda: [_publisher().uvm()])
def uvm_endorsement() -> One:
    """COSE endorsements under did:x509."""
    return _reader()
