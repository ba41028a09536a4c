"""An IBM Z machine made for tests: its own root, host key and Ultravisor, valid or broken in a named way.

machine = FakeMachine(broken="measurement")
evidence = machine.collect(request)          # answers the request that machine.asked holds
claims = verify(evidence, machine.endorsements, request, machine.now)
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from casemate.schema.endorsements import PRODUCTION, Anchor, Endorsements, Secrets
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.se import arcb
from casemate.tee.se import report as wire
from casemate.tee.se.ask import KEY, REQUEST, Asked, ask
from casemate.testing import pki
from casemate.wire.encoding import b64

_IBM = "International Business Machines Corporation"
_ORDER = (NameOID.COUNTRY_NAME, NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME, NameOID.STATE_OR_PROVINCE_NAME,
          NameOID.LOCALITY_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)  # fmt: skip
_WINDOW = (pki.START, pki.END)


def ibm_name(unit: str, place: str = "Armonk", *, common: str = _IBM) -> x509.Name:
    """A name as IBM's papers have it."""
    values = ("US", _IBM, common, "New York", place, unit)
    return x509.Name([x509.NameAttribute(o, v) for o, v in zip(_ORDER, values, strict=True)])


def image_tags(seed: bytes = b"image") -> wire.Tags:
    """The tags of some image."""
    pld, ald, tld = (hashlib.sha512(seed + bytes([i])).digest() for i in range(3))
    return wire.Tags(pld, ald, tld, hashlib.sha256(seed).digest()[:16])


@dataclass
class Paper:
    """A key with its certificate (DER)."""

    key: ec.EllipticCurvePrivateKey
    name: x509.Name
    certificate: bytes = b""

    def crl(self, revoked: tuple[bytes, ...] = (), *, name: x509.Name | None = None,
            window: tuple[datetime, datetime] | None = None) -> bytes:  # fmt: skip
        """This issuer's revocation list (DER)."""
        start, end = window or (pki.NOW - timedelta(days=1), pki.NOW + timedelta(days=30))
        builder = x509.CertificateRevocationListBuilder(name or self.name, start, end)
        for der in revoked:
            number = x509.load_der_x509_certificate(der).serial_number
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(number, start).build())
        return builder.sign(self.key, hashes.SHA384()).public_bytes(Encoding.DER)


def paper(
    name: x509.Name, issuer: Paper | None = None, *, ca: bool | None = True, curve: ec.EllipticCurve | None = None,
    window: tuple[datetime, datetime] = _WINDOW, issued_by: x509.Name | None = None,
) -> Paper:  # fmt: skip
    """A paper below `issuer`; `ca` None leaves out what an end certificate of IBM's has not."""
    key = ec.generate_private_key(curve or ec.SECP384R1())
    signer = issuer or Paper(key, name)
    builder = (
        x509.CertificateBuilder(issued_by or signer.name, name, key.public_key(), x509.random_serial_number(), *window)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                               "encipher_only", "decipher_only"), False)  # fmt: skip
        bits = x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage)
        builder = builder.add_extension(bits, critical=True)
    return Paper(key, name, builder.sign(signer.key, hashes.SHA384()).public_bytes(Encoding.DER))


@dataclass
class FakeMachine:
    """A Z machine and the relying party that asks it. `broken` names one fault of `BROKEN`.

    `asked` is the request that the next answer is to; `rsa_key` makes it CoCo's kind, sealed to the asker by RSA.
    """

    tags: wire.Tags = field(default_factory=image_tags)
    now: datetime = pki.NOW
    platform_class: str = PRODUCTION
    cuid: bytes = b"\xc1" * 16
    rsa_key: rsa.RSAPrivateKey | None = None
    broken: str = ""

    def __post_init__(self) -> None:
        if self.broken and self.broken not in BROKEN:
            raise ValueError(f"no fault {self.broken!r}; known: {', '.join(BROKEN)}")
        self.root = paper(ibm_name("Fake Z Root CA"))
        self.intermediate = paper(ibm_name("Fake Z Intermediate CA"), self.root)
        self.signing = paper(ibm_name("IBM Z Host Key Signing Service", "Poughkeepsie"), self.intermediate, ca=False)
        self.host = self.document()
        self.lists = {"crl.root": self.root.crl(), "crl.intermediate": self.intermediate.crl(),
                      "crl.signing": self.signing.crl()}  # fmt: skip
        self.changes: dict[str, bytes] = {}
        self.image = self.tags
        self.asked = self._sealed(self.rsa_key) if self.rsa_key else ask(self._papers(), self.tags, self.now)
        self.before = self.asked
        if self.broken:
            BROKEN[self.broken](self)

    def document(self, **changes: object) -> Paper:
        """A host-key document of this machine's; `changes` are those of `paper`."""
        given: dict[str, object] = {"issuer": self.signing, "ca": None, "curve": ec.SECP521R1()} | changes
        return paper(ibm_name("IBM Z Host Key"), **given)  # type: ignore[arg-type]  # the names are paper's own

    def renew(self) -> None:
        """A new document for the same key."""
        _document()(self)

    def _papers(self) -> Endorsements:
        anchor = Anchor(certificate=self.root.certificate, platform_class=self.platform_class, name="Fake Z root",
                        tees=("se",))  # fmt: skip
        certificates = (self.host.certificate, self.intermediate.certificate, self.signing.certificate)
        return Endorsements(anchors=(anchor,), certificates=certificates, collateral=self.lists)

    @property
    def endorsements(self) -> Endorsements:
        """The asker's papers, request and key."""
        papers = self._papers()
        collateral = papers.collateral | {REQUEST: self.asked.challenge}
        return Endorsements(anchors=papers.anchors, certificates=papers.certificates, collateral=collateral,
                            secrets=self.asked.secrets)  # fmt: skip

    def _sealed(self, private: rsa.RSAPrivateKey) -> Asked:
        """A request whose keys are sealed to the asker's RSA key, as CoCo's broker makes it."""
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

        from casemate.tee.se.ask import RSA

        secret, public = os.urandom(80), private.public_key()
        host = self.host.key.public_key()
        asker = ec.generate_private_key(ec.SECP521R1())
        blob = arcb.build([host], asker, key=os.urandom(32), iv=os.urandom(12), secret=secret)
        echo = (public.encrypt(secret[:64], padding.PKCS1v15()), public.encrypt(secret[64:], padding.PKCS1v15()))
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Asked(wire.Challenge(blob, 64, 64, echo, self.tags).pack(), Secrets({RSA: pem}))

    def collect(self, request: Request) -> Evidence:
        """The Ultravisor's answer to the request, with the fault that `broken` names."""
        challenge = wire.parse_challenge(self.before.challenge)
        key, nonce = self.opened(arcb.parse(challenge.blob))
        user = (request.report_data or b"").ljust(64, b"\0")
        phkh = arcb.key_digest(self.host.key.public_key())
        additional = self.changes.get("additional", hashlib.sha256(b"image host").digest() + phkh)
        data = wire.measured(self.image, self.cuid, user, nonce, additional)
        digest = hmac.new(self.changes.get("key", key), data, hashlib.sha512).digest()
        primary = {
            "measurement": digest, "additional_data": additional, "user_data": user, "cuid": self.cuid,
            "encr_measurement_key": challenge.echo[0], "encr_request_nonce": challenge.echo[1],
            "image_hdr_tags": self.image.pack(),
        }  # fmt: skip
        changed = {name: value for name, value in self.changes.items() if name in primary and name != "additional"}
        return Evidence(tee="se", primary={name: b64(value) for name, value in (primary | changed).items()})

    def opened(self, block: arcb.Arcb) -> tuple[bytes, bytes]:
        """What the machine's own key gets out of a request."""
        numbers = ec.EllipticCurvePublicNumbers(
            int.from_bytes(block.asker[:80], "big"), int.from_bytes(block.asker[80:], "big"), ec.SECP521R1()
        )
        mine = arcb.key_digest(self.host.key.public_key())
        slot = next((s for s in block.slots if s.host == mine), None)
        if slot is None:  # another machine: it cannot open it, and answers with what it has
            return bytes(64), bytes(16)
        wrapping = arcb.wrapping(self.host.key, numbers.public_key())
        opened = block.open(AESGCM(wrapping).decrypt(bytes(12), slot.wrapped, None))
        if opened is None:
            raise ValueError("the request is broken")
        return opened


def _change(**values: bytes) -> Callable[[FakeMachine], None]:
    return lambda machine: machine.changes.update(values)


def _lists(**values: Callable[[FakeMachine], bytes]) -> Callable[[FakeMachine], None]:
    def apply(machine: FakeMachine) -> None:
        machine.lists |= {f"crl.{name}": make(machine) for name, make in values.items()}

    return apply


def _other_request(machine: FakeMachine) -> None:
    machine.before = ask(machine._papers(), machine.tags, machine.now)


def _other_image(machine: FakeMachine) -> None:
    machine.image = image_tags(b"other")


def _other_key(machine: FakeMachine) -> None:
    machine.asked = replace(machine.asked, secrets=Secrets({KEY: bytes(32)}))


def _request(machine: FakeMachine) -> None:
    challenge = wire.parse_challenge(machine.asked.challenge)
    blob = challenge.blob[:-1] + bytes([challenge.blob[-1] ^ 1])
    machine.asked = replace(machine.asked, challenge=replace(challenge, blob=blob).pack())


def _document(**changes: object) -> Callable[[FakeMachine], None]:
    """The machine's document is replaced by one for the same key."""

    def apply(machine: FakeMachine) -> None:
        given: dict[str, object] = {}
        for name, value in changes.items():
            given[name] = value(machine) if callable(value) else value
        new = machine.document(**given)
        builder = x509.load_der_x509_certificate(new.certificate)
        signer = given.get("issuer")
        key = signer.key if isinstance(signer, Paper) else machine.signing.key
        der = _for_key(builder, machine.host.key, key)
        machine.host = Paper(machine.host.key, machine.host.name, der)

    return apply


def _for_key(cert: x509.Certificate, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey) -> bytes:
    builder = x509.CertificateBuilder(cert.issuer, cert.subject, key.public_key(), cert.serial_number,
                                      cert.not_valid_before_utc, cert.not_valid_after_utc)  # fmt: skip
    for extension in cert.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(signer, hashes.SHA384()).public_bytes(Encoding.DER)


def _impostor(machine: FakeMachine) -> Paper:
    return paper(machine.signing.name, machine.intermediate, ca=False)


def _other_subject(machine: FakeMachine) -> None:
    """The signing certificate is somebody's whom the same root knows."""
    machine.signing = paper(
        ibm_name("IBM Z Host Key Signing Service", common="Mallory"), machine.intermediate, ca=False
    )
    _document()(machine)
    machine.lists["crl.signing"] = machine.signing.crl()


def _other_root(machine: FakeMachine) -> None:
    root = paper(machine.root.name)
    machine.intermediate = paper(machine.intermediate.name, root)
    machine.signing = paper(machine.signing.name, machine.intermediate, ca=False)
    _document()(machine)
    machine.lists |= {"crl.root": root.crl(), "crl.intermediate": machine.intermediate.crl(),
                      "crl.signing": machine.signing.crl()}  # fmt: skip


def _no_intermediate(machine: FakeMachine) -> None:
    machine.signing = paper(machine.signing.name, machine.root, ca=False)
    _document()(machine)
    machine.lists["crl.signing"] = machine.signing.crl()


_PAST = (pki.NOW - timedelta(days=90), pki.NOW - timedelta(days=60))
_FUTURE = (pki.NOW + timedelta(days=60), pki.NOW + timedelta(days=90))

BROKEN: dict[str, Callable[[FakeMachine], None]] = {
    "measurement": _change(measurement=bytes(64)),
    "measurement-key": _change(key=bytes(64)),
    "cuid": _change(cuid=bytes(16)),
    "user-data": _change(user_data=b"another".ljust(64, b"\0")),
    "echo": _change(encr_measurement_key=b"x"),
    "additional-size": _change(additional=bytes(32)),
    "other-host": _change(additional=bytes(64)),
    "other-request": _other_request,
    "other-image": _other_image,
    "other-key": _other_key,
    "request": _request,
    "document-expired": _document(window=_PAST),
    "document-early": _document(window=_FUTURE),
    "document-forged": _document(issuer=_impostor),
    "document-issuer": _document(issued_by=ibm_name("Another Service")),
    "signer-subject": _other_subject,
    "other-root": _other_root,
    "no-intermediate": _no_intermediate,
    "revoked": _lists(signing=lambda m: m.signing.crl((m.host.certificate,))),
    "signer-revoked": _lists(intermediate=lambda m: m.intermediate.crl((m.signing.certificate,))),
    "intermediate-revoked": _lists(root=lambda m: m.root.crl((m.intermediate.certificate,))),
    "list-expired": _lists(signing=lambda m: m.signing.crl(window=_PAST)),
    "list-early": _lists(signing=lambda m: m.signing.crl(window=_FUTURE)),
    "list-issuer": _lists(signing=lambda m: m.signing.crl(name=m.intermediate.name)),
    "root-list-expired": _lists(root=lambda m: m.root.crl(window=_PAST)),
}
