"""A sigstore instance made for tests: certificate authority, certificate log and signature log with keys of their own.

instance = FakeSigstore()
bundle = instance.bundle(statement)               # a signed in-toto statement, logged, with every proof
trust = instance.trust                            # the identity that signed, and this instance's trusted root
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from casemate.crypto import signatures
from casemate.policy.references import Identity, ReferenceTrust, dsse, intoto
from casemate.testing import pki
from casemate.wire import jcs
from casemate.wire.encoding import b64

IDENTITY = Identity("release@signer.example", "https://issuer.example")
_ISSUER = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_STAMPS = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ORIGIN = "log.example - 1"


@dataclass
class FakeSigstore:
    """One instance. `bundle` takes a fault of `BROKEN`."""

    now: datetime = pki.NOW
    root: ec.EllipticCurvePrivateKey = field(default_factory=pki.p384)
    certificate_log: ec.EllipticCurvePrivateKey = field(default_factory=pki.p256)
    log: ec.EllipticCurvePrivateKey = field(default_factory=pki.p256)

    def __post_init__(self) -> None:
        self.authority = _authority(self.root)

    @property
    def trusted_root(self) -> bytes:
        """This instance's trusted_root.json."""
        born = {"validFor": {"start": "2020-01-01T00:00:00Z"}}
        chain = {"certificates": [{"rawBytes": b64(self.authority.public_bytes(Encoding.DER))}]}
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [_log(self.log)],
                "ctlogs": [_log(self.certificate_log)],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": "example", "commonName": "Fake sigstore"},
                        "uri": "https://ca.example",
                        "certChain": chain,
                    }
                    | born
                ],
            }
        ).encode()

    @property
    def trust(self) -> ReferenceTrust:
        """A relying party that believes `IDENTITY` about any SLSA provenance."""
        return ReferenceTrust(identities=(IDENTITY,), trusted_root=self.trusted_root)

    def bundle(self, statement: bytes, broken: str = "") -> bytes:
        """A bundle (v0.3) of an in-toto statement; `broken` of `BROKEN`."""
        if broken and broken not in BROKEN:
            raise ValueError(f"no fault {broken!r}; known: {', '.join(BROKEN)}")
        key = pki.p256()
        certificate = self._certificate(key, broken)
        signer = pki.p256() if broken == "signature" else key
        signature = signatures.sign_dsse(signer, dsse.pae(intoto.PAYLOAD_TYPE, statement))
        body = _body(b"{}" if broken == "entry" else statement, signature, certificate)
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "verificationMaterial": {
                    "certificate": {"rawBytes": b64(certificate.public_bytes(Encoding.DER))},
                    "tlogEntries": [self._entry(body, broken)],
                },
                "dsseEnvelope": {
                    "payload": b64(statement),
                    "payloadType": intoto.PAYLOAD_TYPE,
                    "signatures": [{"sig": b64(signature)}],
                },
            }
        ).encode()

    def _certificate(self, key: ec.EllipticCurvePrivateKey, broken: str) -> x509.Certificate:
        """A certificate for ten minutes, stamped by the certificate log (RFC 6962 section 3.2)."""
        start = self.now - timedelta(minutes=20 if broken == "expired" else 1)
        email = "other@signer.example" if broken == "identity" else IDENTITY.identity
        issuer = "https://other.example" if broken == "issuer" else IDENTITY.issuer
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if broken == "usage" else ExtendedKeyUsageOID.CODE_SIGNING
        root = pki.p384() if broken == "root" else self.root
        builder = (
            x509.CertificateBuilder(self.authority.subject, x509.Name([]), key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(minutes=10))
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(email)]), critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER, issuer.encode()), critical=False)
        )
        unstamped = builder.sign(root, hashes.SHA384())
        stamps = self._stamp(unstamped.tbs_certificate_bytes, pki.p256() if broken == "stamp" else self.certificate_log)
        builder = builder.add_extension(x509.UnrecognizedExtension(_STAMPS, stamps), critical=False)
        return builder.sign(root, hashes.SHA384())

    def _stamp(self, unstamped: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
        issuer = hashlib.sha256(signatures.spki(self.root.public_key())).digest()
        moment = int(self.now.timestamp() * 1000)
        entry = issuer + len(unstamped).to_bytes(3, "big") + unstamped
        signature = key.sign(struct.pack("!BBQH", 0, 0, moment, 1) + entry + b"\0\0", ec.ECDSA(hashes.SHA256()))
        stamp = (
            b"\0" + _key_id(self.certificate_log) + struct.pack("!QHBBH", moment, 0, 4, 3, len(signature)) + signature
        )
        return pki.der(0x04, struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp)

    def _entry(self, body: bytes, broken: str) -> dict[str, Any]:
        """The only entry of the log, promised and proven."""
        moment, key_id = int(self.now.timestamp()), _key_id(self.log)
        promised = {"body": b64(body), "integratedTime": moment, "logID": key_id.hex(), "logIndex": 0}
        promise = (pki.p256() if broken == "promise" else self.log).sign(
            jcs.canonical(promised), ec.ECDSA(hashes.SHA256())
        )
        root = hashlib.sha256(b"\0" + (b"another" if broken == "proof" else body)).digest()
        note = f"{_ORIGIN}\n1\n{b64(root)}\n"
        head = (pki.p256() if broken == "checkpoint" else self.log).sign(note.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "logIndex": "0",
            "logId": {"keyId": b64(key_id)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(moment),
            "inclusionPromise": {"signedEntryTimestamp": b64(promise)},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n— log.example {b64(key_id[:4] + head)}\n"},
            },
            "canonicalizedBody": b64(body),
        }


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Fake sigstore")])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(pki.START)
        .not_valid_after(pki.END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA384())


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(signatures.spki(key.public_key())).digest()


def _log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    return {
        "baseUrl": "https://log.example",
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": b64(signatures.spki(key.public_key())),
            "keyDetails": "PKIX_ECDSA_P256_SHA_256",
            "validFor": {"start": "2020-01-01T00:00:00Z"},
        },
        "logId": {"keyId": b64(_key_id(key))},
    }


def _body(statement: bytes, signature: bytes, certificate: x509.Certificate) -> bytes:
    """The log's entry of kind dsse 0.0.1."""
    return jcs.canonical(
        {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": {"algorithm": "sha256", "value": "00" * 32},
                "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(statement).hexdigest()},
                "signatures": [{"signature": b64(signature), "verifier": b64(certificate.public_bytes(Encoding.PEM))}],
            },
        }
    )


# All are refused by the rule `reference.signature`: the library that judges bundles tells its reason in `found`.
BROKEN = (
    "signature",
    "entry",
    "expired",
    "identity",
    "issuer",
    "usage",
    "root",
    "stamp",
    "promise",
    "proof",
    "checkpoint",
)
