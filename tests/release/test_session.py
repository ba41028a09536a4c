"""The RCAR session's arithmetic against the peers' vectors, and the relay rule."""

import hashlib

import pytest

from casemate.errors import Malformed, Refused
from casemate.release import session
from casemate.wire.encoding import b64

NONCE = b64(bytes(range(32)))
KEY = {
    "kty": "EC",
    "crv": "P-256",
    "alg": "ECDH-ES+A256KW",
    "x": "FvCPUXLoAJdGS7r0YU1mnMiD2nzn7OjQP3erVPWcoGA",
    "y": "0b31ECFNLbSgcm1Jgks9gp40jbJbrutK33Uu7pjdvvs",
}
PIN, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def test_report_data_vector():
    expected = "5464382c0169bfacd7b5380146bed959857ed95f56bd3863815f4f2b0060b5d89b5fbed6314dc42eb4e0039a38c7a9a7"
    assert session.report_data(NONCE, KEY).hex() == expected


def test_additional_evidence_is_bound():
    assert session.report_data(NONCE, KEY, "x") != session.report_data(NONCE, KEY, "")


def test_nonce_belongs_to_one_broker():
    salt = b"s" * 32
    nonce = session.make_nonce(PIN, salt)
    session.demand_nonce(nonce, PIN, b64(salt))
    for pin, header in ((OTHER, b64(salt)), (PIN, b64(b"t" * 32))):
        with pytest.raises(Refused) as refusal:
            session.demand_nonce(nonce, pin, header)
        assert refusal.value.findings[0].rule == "session.nonce"
    with pytest.raises(Malformed):
        session.demand_nonce(nonce, PIN, b64(b"short"))


def test_purposes_do_not_meet():
    data = session.jcs.canonical({"additional-evidence": "", "nonce": NONCE, "tee-pubkey": KEY})
    seen = {session.purpose_data(p, data) for p in ("service", "local-api", "")}
    assert len(seen) == 3
    assert hashlib.sha384(data).digest() not in seen
