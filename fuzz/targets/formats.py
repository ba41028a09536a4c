"""Encodings that many rooms read: CBOR, COSE, DER, X.509, PEM, canonical JSON, base64 and hex."""

from __future__ import annotations

from collections.abc import Iterable

from fuzz.target import One, target


def _cbor() -> Iterable[bytes]:
    from casemate.testing.nitro import FakeEnclave
    from casemate.wire import cbor

    yield cbor.dumps({1: [1, -1, b"x", "text", None, True], "a": {2: b""}})
    yield bytes.fromhex("9f018202039f0405ffff") + b""
    yield FakeEnclave().document(b"nonce")


@target("cbor", _cbor)
def cbor() -> One:
    """The bounded CBOR reader."""
    from casemate.wire import cbor

    return cbor.loads


def _cose() -> Iterable[bytes]:
    from casemate.testing.nitro import FakeEnclave

    yield FakeEnclave(user_data=b"u", public_key=b"k").document()


@target("cose", _cose)
def cose() -> One:
    """COSE_Sign1."""
    from casemate.crypto import cose

    return cose.parse


def _certificates() -> Iterable[bytes]:
    from casemate.testing import pki
    from casemate.testing.dcap import FakePlatform
    from casemate.testing.snp import FakeChip

    yield from (der for _, der in FakeChip().chain)
    yield FakePlatform("sgx").parts.pck_chain[0]
    yield pki.Authority("Fake root").crl()


@target("der", _certificates)
def der() -> One:
    """The DER reader, over a whole tree."""
    from casemate.crypto import der

    return der.loads


@target("x509", _certificates)
def x509() -> One:
    """Certificates and revocation lists, with all that is read of them."""
    from casemate.crypto import chain
    from casemate.errors import Malformed
    from casemate.tee.dcap import pck
    from casemate.tee.snp import vek

    def one(data: bytes) -> None:
        read = 0
        for parse in (chain.load, chain.load_crl, pck.read, vek.read):
            try:
                parse(data)
                read += 1
            except Malformed as error:
                last = error
        if not read:
            raise last

    return one


def _pem() -> Iterable[bytes]:
    from casemate.testing import pki

    root = pki.Authority("Fake root")
    yield pki.pem(root.certificate, root.subordinate("Fake sub").certificate)


@target("pem", _pem)
def pem() -> One:
    """Concatenated PEM certificates."""
    from casemate.crypto import pem

    return lambda data: pem.certificates(data, "chain")


def _json() -> Iterable[bytes]:
    from casemate.schema import manifest as manifests
    from casemate.testing.manifests import document

    yield manifests.from_builtins(document()).canonical()
    yield b'{"a":[1,2.5,null,true,"\xc3\xa9\\ud83d\\ude00"],"b":{"c":-0}}'


@target("json", _json)
def json() -> One:
    """JSON as everything of ours reads it."""
    from casemate.wire import jcs

    return jcs.parse
