"""Traps that other verifiers fell into, where SE evidence touches them; and every byte of an answer, changed."""

from __future__ import annotations

import base64
import socket

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from casemate.errors import Malformed, Refused, Unusable
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import se
from casemate.tee.se import arcb
from casemate.tee.se import report as wire
from casemate.tee.se.ask import REQUEST, ask
from casemate.testing import pki
from casemate.testing.se import FakeMachine
from casemate.wire.encoding import b64

ASKED = Request(report_data=b"r" * 32)


@pytest.fixture(scope="module")
def machine():
    return FakeMachine()


def failed(machine, evidence, request=ASKED, endorsements=None):
    with pytest.raises(Refused) as caught:
        se.verify(evidence, endorsements or machine.endorsements, request, machine.now)
    return {f.rule for f in caught.value.findings if not f.ok}


def test_trap_2_a_short_hash_is_not_padded_into_a_match(machine):
    evidence = machine.collect(Request(report_data=b"r" * 31 + b"x"))
    assert failed(machine, evidence, Request(report_data=b"r" * 31)) == {"se.report_data"}
    assert failed(machine, machine.collect(Request()), Request(report_data=b"")) == {"se.report_data"}


def test_trap_7_the_shared_secret_is_derived_and_all_before_the_seal_is_bound(machine):
    block = arcb.parse(wire.parse_challenge(machine.asked.challenge).blob)
    assert block.authenticated + block.encrypted == wire.parse_challenge(machine.asked.challenge).blob
    key, nonce = machine.opened(block)
    assert (len(key), len(nonce)) == (64, 16)


def test_trap_8_keys_of_an_unknown_sender_are_not_used():
    """CoCo's form brings the sealed measurement key along; who knows the public key can seal another."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    machine, forger = FakeMachine(rsa_key=key), FakeMachine(rsa_key=key)
    assert {"se.echo", "se.measurement"} <= failed(machine, forger.collect(ASKED))


def test_trap_8_an_old_answer_is_not_an_answer_to_a_new_request(machine):
    evidence = machine.collect(ASKED)
    again = ask(machine.endorsements, machine.tags, machine.now)
    papers = machine.endorsements
    newer = Endorsements(anchors=papers.anchors, certificates=papers.certificates, secrets=again.secrets,
                         collateral=papers.collateral | {REQUEST: again.challenge})  # fmt: skip
    assert failed(machine, evidence, ASKED, newer) == {"se.measurement"}


def test_trap_13_the_chain_goes_to_an_anchored_root(machine):
    papers = machine.endorsements
    for anchors in ((), (Anchor(certificate=machine.root.certificate, tees=("tpm",)),)):
        less = Endorsements(anchors=anchors, certificates=(*papers.certificates, machine.root.certificate),
                            collateral=papers.collateral, secrets=papers.secrets)  # fmt: skip
        with pytest.raises(Unusable, match="root"):
            se.verify(machine.collect(ASKED), less, ASKED, machine.now)
    other = Anchor(certificate=pki.Authority("Another root").certificate, tees=("se",))
    less = msgspec.structs.replace(less, anchors=(other,))
    assert failed(machine, machine.collect(ASKED), ASKED, less) == {"se.host-key.chain.chain"}


def test_trap_25_nothing_is_fetched_within_a_verification(machine, monkeypatch):
    def no_socket(*_args, **_kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_socket)
    assert se.verify(machine.collect(ASKED), machine.endorsements, ASKED, machine.now)


def test_every_changed_byte_of_an_answer_is_refused(machine):
    evidence = machine.collect(ASKED)
    se.verify(evidence, machine.endorsements, ASKED, machine.now)
    counts = {}
    for name, text in evidence.primary.items():
        data = base64.b64decode(text)
        for offset in range(len(data)):
            changed = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
            sent = Evidence(tee="se", primary=evidence.primary | {name: b64(changed)})
            with pytest.raises((Malformed, Refused, Unusable)) as caught:
                se.verify(sent, machine.endorsements, ASKED, machine.now)
            counts[caught.type.__name__] = counts.get(caught.type.__name__, 0) + 1
    print(f"SE answer: {counts}")
    assert counts == {"Refused": 64 + 64 + 64 + 16 + 208}


def test_every_changed_byte_of_the_request_is_refused(machine):
    evidence, papers = machine.collect(ASKED), machine.endorsements
    sent = wire.parse_challenge(machine.asked.challenge).blob
    for offset in range(len(sent)):
        blob = sent[:offset] + bytes([sent[offset] ^ 1]) + sent[offset + 1 :]
        other = Endorsements(anchors=papers.anchors, certificates=papers.certificates, secrets=papers.secrets,
                             collateral=papers.collateral | {REQUEST: blob})  # fmt: skip
        with pytest.raises((Malformed, Refused, Unusable)):
            se.verify(evidence, other, ASKED, machine.now)
