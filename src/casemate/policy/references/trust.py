"""Whom a relying party believes about reference values, and about what; nothing that a document says can add to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from casemate.errors import Malformed, Unusable
from casemate.wire import jcs

SLSA_V1 = "https://slsa.dev/provenance/v1"
SLSA_V02 = "https://slsa.dev/provenance/v0.2"
LIMIT = 256 << 10
MOST = 64
_PEM = re.compile(rb"-----BEGIN (PUBLIC KEY|CERTIFICATE)-----([A-Za-z0-9+/=\s]*)-----END \1-----")
_TRUSTED_ROOT = "application/vnd.dev.sigstore.trustedroot"


@dataclass(frozen=True)
class Did:
    """A did:x509 issuer, the one feed that it is believed about, and the oldest security version of it."""

    did: str
    feed: str
    minimum_svn: int = 0


@dataclass(frozen=True)
class Identity:
    """A sigstore signer: the identity in the certificate (e-mail or URI) and the issuer that vouched for it."""

    identity: str
    issuer: str


@dataclass(frozen=True, kw_only=True)
class ReferenceTrust:
    """What a relying party names before it reads anything; all of it is closed by default.

    `keys` are DER SubjectPublicKeyInfo. `certificates` are DER: an authority is a root of signers' chains (all that is
    below it is believed, so name an authority for this use alone), any other is a signer itself. `trusted_root` is
    sigstore's trusted_root.json. `threshold` is how many distinct keys must have signed a DSSE envelope. `scope` is
    what the values are wanted for (`tee`, `app`, `tenant`, ...): a document that is limited to something else, or to
    something that is not named here, is refused. `subjects` maps names of in-toto subjects to registers. `builders`
    limits SLSA provenance where it is given. `profiles` are CoRIM profiles that are accepted beside those whose rules
    are known here. `max_age` bounds the age of documents.
    `believe_signing_time` judges certificates at the time that the signer states instead of at `now`: for documents
    that outlive their certificates, at the price that whoever later gets the key can date a document back.
    """

    keys: tuple[bytes, ...] = ()
    certificates: tuple[bytes, ...] = ()
    dids: tuple[Did, ...] = ()
    identities: tuple[Identity, ...] = ()
    trusted_root: bytes = b""
    allow_unsigned: bool = False
    threshold: int = 1
    scope: Mapping[str, str] = field(default_factory=dict)
    subjects: Mapping[str, str] = field(default_factory=dict)
    predicate_types: frozenset[str] = frozenset({SLSA_V1, SLSA_V02})
    builders: frozenset[str] = frozenset()
    profiles: frozenset[str] = frozenset()
    max_age: timedelta | None = None
    believe_signing_time: bool = False


def load(files: Iterable[bytes], base: ReferenceTrust | None = None) -> ReferenceTrust:
    """`base` with what the files name, each recognised by its content.

    A file is: PEM or DER public keys and certificates; lines `did:x509:… FEED [MINIMUM-SVN]`; a sigstore
    trusted_root.json; or `{"identity": …, "issuer": …}`. Anything else is `Malformed`.
    """
    trust = base or ReferenceTrust()
    for data in files:
        if len(data) > LIMIT:
            raise Malformed(f"reference key: {len(data)} bytes, at most {LIMIT} allowed")
        trust = _add(trust, data)
    return trust


def _add(trust: ReferenceTrust, data: bytes) -> ReferenceTrust:
    text = data.lstrip()
    if text.startswith(b"did:"):
        return replace(trust, dids=(*trust.dids, *_dids(text)))
    if text.startswith(b"{"):
        return _document(trust, data)
    blocks = _PEM.findall(data)
    if b"PRIVATE KEY" in data:
        raise Unusable("reference key: a private key", hint="give the public half: openssl pkey -in KEY -pubout")
    if blocks:
        if len(blocks) > MOST:
            raise Malformed(f"reference key: {len(blocks)} blocks, at most {MOST} allowed")
        for kind, body in blocks:
            trust = _der(trust, _unb64(body), certificate=kind == b"CERTIFICATE")
        return trust
    return _der(trust, data, certificate=None)


def _der(trust: ReferenceTrust, data: bytes, *, certificate: bool | None) -> ReferenceTrust:
    from casemate.crypto import chain, signatures

    if certificate is not True:
        try:
            signatures.load(data)
            return replace(trust, keys=(*trust.keys, data))
        except Malformed:
            if certificate is False:
                raise
    try:
        chain.load(data)
    except Malformed as error:
        raise Malformed(
            "reference key: neither a public key, a certificate, a did:x509 line, a sigstore trusted root nor an "
            "identity with its issuer"
        ) from error
    return replace(trust, certificates=(*trust.certificates, data))


def _dids(text: bytes) -> tuple[Did, ...]:
    found = []
    try:
        lines = text.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise Malformed("reference key: did lines that are not ASCII") from error
    for line in lines[:MOST]:
        words = line.split()
        if not words:
            continue
        minimum = words[2] if len(words) == 3 else "0"
        if len(words) not in (2, 3) or not minimum.isdigit() or len(minimum) > 9:
            raise Malformed("reference key: a did line is: did:x509:… FEED [MINIMUM-SVN]")
        found.append(Did(words[0], words[1], int(minimum)))
    return tuple(found)


def _document(trust: ReferenceTrust, data: bytes) -> ReferenceTrust:
    document = jcs.parse_object(data, "reference key", limit=LIMIT)
    if str(document.get("mediaType", "")).startswith(_TRUSTED_ROOT):
        return replace(trust, trusted_root=data)
    identity, issuer = document.get("identity"), document.get("issuer")
    if set(document) != {"identity", "issuer"} or not (isinstance(identity, str) and isinstance(issuer, str)):
        raise Malformed('reference key: JSON that is neither a trusted root nor {"identity": …, "issuer": …}')
    if not identity or not issuer:
        raise Malformed("reference key: identity and issuer must both be named")
    return replace(trust, identities=(*trust.identities, Identity(identity, issuer)))


def _unb64(body: bytes) -> bytes:
    from casemate.wire.encoding import unb64

    return unb64(b"".join(body.split()).decode("ascii"), "reference key")
