"""Traps that other verifiers fell into, where a realm's token touches them."""

from __future__ import annotations

import socket

import pytest

from casemate.errors import Refused, Unusable
from casemate.policy import platform
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.schema.request import Request
from casemate.tee import cca
from casemate.testing.cca import FakeRealm

ASKED = Request(report_data=b"r" * 32, initdata_digest=b"i" * 32)


def failed(realm, evidence, request, endorsements=None):
    with pytest.raises(Refused) as caught:
        cca.verify(evidence, endorsements or realm.endorsements, request, realm.now)
    return {f.rule for f in caught.value.findings if not f.ok}


def test_trap_2_a_short_hash_is_not_padded_into_a_match():
    realm = FakeRealm()
    evidence = realm.collect(Request(report_data=b"r" * 31 + b"x", initdata_digest=b"i" * 31 + b"x"))
    short = Request(report_data=b"r" * 31, initdata_digest=b"i" * 31)
    assert failed(realm, evidence, short) == {"cca.report_data", "cca.initdata"}


def test_trap_2_a_digest_that_ends_in_zeros_is_no_shorter_digest():
    realm = FakeRealm()
    evidence = realm.collect(Request(report_data=b"r" * 32, initdata_digest=b"i" * 31 + b"\0"))
    assert failed(realm, evidence, Request(initdata_digest=b"i" * 31)) == {"cca.initdata"}


def test_trap_13_a_platform_is_believed_by_a_given_key_alone():
    """There is no root for platforms: a token that nobody gave a key for is not accepted, however well it is made."""
    realm, stranger = FakeRealm(), FakeRealm()
    evidence = realm.collect(ASKED)
    with pytest.raises(Unusable, match="platform-key"):
        cca.verify(evidence, Endorsements(), ASKED, realm.now)
    assert failed(realm, evidence, ASKED, stranger.endorsements) == {"cca.platform.signature"}
    for_another = Endorsements(
        anchors=tuple(Anchor(certificate=a.certificate, tees=("tpm",)) for a in realm.endorsements.anchors)
    )
    with pytest.raises(Unusable, match="platform-key"):
        cca.verify(evidence, for_another, ASKED, realm.now)


def test_trap_14_debug_states_are_judged():
    for fault in ("debug", "recoverable-debug", "unknown-lifecycle"):
        realm = FakeRealm(broken=fault)
        claims = cca.verify(realm.collect(ASKED), realm.endorsements, ASKED, realm.now)
        assert [f.rule for f in platform.judge(claims) if not f.ok] == ["cca.lifecycle"]


def test_trap_25_nothing_is_fetched_within_a_verification(monkeypatch):
    """The token names a verification service; nobody is asked there."""

    def no_socket(*_args, **_kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_socket)
    realm = FakeRealm()
    assert cca.verify(realm.collect(ASKED), realm.endorsements, ASKED, realm.now)


def test_trap_26_a_genuine_realm_is_not_yet_the_wanted_workload():
    realm = FakeRealm(realm={44238: b"\x99" * 32})
    claims = cca.verify(realm.collect(Request()), realm.endorsements, Request(), realm.now)
    assert claims.measurement["rim"] == "99" * 32
    assert not claims.fresh
