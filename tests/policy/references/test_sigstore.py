"""Sigstore bundles of an instance of our own: read offline, and refused in each broken way."""

import builtins
import dataclasses
import socket
from datetime import timedelta

import pytest

from casemate.errors import Malformed, Refused, Unusable
from casemate.policy import references
from casemate.policy.references import Identity, ReferenceTrust
from casemate.testing.references import Publisher
from casemate.wire import jcs
from casemate.wire.encoding import unb64

pytest.importorskip("sigstore", reason="the extra casemate[sigstore] is not installed")

from casemate.testing.sigstore import BROKEN, IDENTITY, FakeSigstore

INSTANCE = FakeSigstore()
STATEMENT = unb64(jcs.parse_object(Publisher().provenance())["payload"])
BUNDLE = INSTANCE.bundle(STATEMENT)


def failed(data, trust=INSTANCE.trust, now=INSTANCE.now):
    with pytest.raises(Refused) as caught:
        references.read(data, trust, now)
    return {finding.rule for finding in caught.value.findings if not finding.ok}


def test_a_bundle_is_read_offline(monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("something asks the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    found = references.read(BUNDLE, INSTANCE.trust, INSTANCE.now)
    assert found[0].registers["measurement"].values == ("5a" * 48,)
    assert found[0].signer == f"{IDENTITY.identity}, by {IDENTITY.issuer}"


def test_certificates_are_judged_at_the_time_of_the_log():
    assert references.read(BUNDLE, INSTANCE.trust, INSTANCE.now + timedelta(days=900))


@pytest.mark.parametrize("broken", BROKEN)
def test_each_fault_is_refused(broken):
    assert failed(INSTANCE.bundle(STATEMENT, broken)) == {"reference.signature"}


def test_others_are_nobody():
    assert failed(BUNDLE, FakeSigstore().trust) == {"reference.signature"}
    for identity in (Identity("", IDENTITY.issuer), Identity(IDENTITY.identity, "https://other.example")):
        assert failed(BUNDLE, dataclasses.replace(INSTANCE.trust, identities=(identity,))) == {"reference.signature"}
    several = dataclasses.replace(INSTANCE.trust, identities=(Identity("other@signer.example", "x"), IDENTITY))
    assert references.read(BUNDLE, several, INSTANCE.now)
    assert failed(BUNDLE, ReferenceTrust()) == {"reference.signer.identity"}
    assert failed(BUNDLE, ReferenceTrust(allow_unsigned=True)) == {"reference.signer.identity"}


def test_without_an_issuer_no_identity_is_named():
    with pytest.raises(Malformed):
        references.load([b'{"identity": "release@signer.example"}'])
    with pytest.raises(Malformed):
        references.load([b'{"identity": "release@signer.example", "issuer": ""}'])


def test_a_trusted_root_that_is_none_is_malformed():
    trust = dataclasses.replace(INSTANCE.trust, trusted_root=b'{"mediaType": "x"}')
    with pytest.raises(Malformed):
        references.read(BUNDLE, trust, INSTANCE.now)


def test_without_the_extra_the_reason_is_told(monkeypatch):
    genuine = builtins.__import__

    def missing(name, *arguments, **options):
        if name.startswith("sigstore"):
            raise ImportError(name)
        return genuine(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(Unusable) as caught:
        references.read(BUNDLE, INSTANCE.trust, INSTANCE.now)
    assert "casemate[sigstore]" in caught.value.hint


@pytest.mark.parametrize("stride", [61, pytest.param(1, marks=pytest.mark.soak)])
def test_changed_bytes_are_refused(stride):
    """But what does not change what is meant.

    The log's name beside its signature is a label: the key is chosen by its id. The last letter of base64 before its
    padding has stray bits, which the library reads as the same bytes.
    """
    label = BUNDLE.rindex(b"log.example")
    harmless = {
        *range(label, label + len("log.example ")),
        *(at for at in range(len(BUNDLE)) if BUNDLE[at + 1 : at + 2] == b"="),
    }
    accepted = []
    for offset in range(0, len(BUNDLE), stride):
        changed = BUNDLE[:offset] + bytes([BUNDLE[offset] ^ 1]) + BUNDLE[offset + 1 :]
        try:
            references.read(changed, INSTANCE.trust, INSTANCE.now)
            accepted.append(offset)
        except (Refused, Malformed):
            pass
    print(f"{len(range(0, len(BUNDLE), stride))} of {len(BUNDLE)} bytes changed, {len(accepted)} accepted")
    assert [BUNDLE[max(0, at - 30) : at + 12] for at in accepted if at not in harmless] == []
