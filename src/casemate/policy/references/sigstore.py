"""Sigstore bundles (v0.1 to v0.3) around an in-toto statement; needs the extra `casemate[sigstore]`.

Verified by sigstore's own library, offline, against the trusted_root.json that the relying party gives: the Fulcio
chain at the time that the log states, the certificate's transparency stamp, the log's promise and inclusion proof, the
DSSE signature. Both the identity and its issuer must be named; a bundle that only some identity signed proves nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from casemate.errors import Malformed, Unusable
from casemate.policy.references import dsse, intoto, rules, signed
from casemate.wire import jcs

if TYPE_CHECKING:
    from sigstore.models import Bundle
    from sigstore.verify import Verifier

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle"
LIMIT = 512 << 10
MAX_DEPTH = 12
_ERRORS = (ValueError, TypeError, KeyError, AttributeError, IndexError, AssertionError, OverflowError)


def read(data: bytes, reading: rules.Reading) -> None:
    """The references of a bundle, and its rules."""
    document = jcs.parse(data, "sigstore bundle", limit=LIMIT, depth=MAX_DEPTH)
    if "dsseEnvelope" not in document:
        raise Malformed("sigstore bundle: no DSSE envelope, so no statement about reference values")
    envelope = dsse.parse(document["dsseEnvelope"]) if isinstance(document["dsseEnvelope"], dict) else None
    if envelope is None or envelope.payload_type not in (intoto.PAYLOAD_TYPE, signed.PAYLOAD_TYPE):
        raise Malformed("sigstore bundle: an envelope of another payload type")
    named = bool(reading.trust.identities and reading.trust.trusted_root)
    hint = "name identity and issuer, and give a trusted_root.json (--reference-key for both)"
    wanted = "a named identity with its issuer, and a trusted root"
    reading.add("reference.signer.identity", wanted, "named" if named else "not named", hint, ok=named)
    bundle = _bundle(data)
    logged = _logged(bundle)
    signer = _signer(bundle, envelope, reading) if named else ""
    reading.times(issued=logged, expires=None)
    statement = jcs.parse_object(envelope.payload, "in-toto statement")
    if envelope.payload_type == signed.PAYLOAD_TYPE:
        signed.document(statement, [signer] if signer else [], reading)
    else:
        intoto.statement(statement, signer, reading, logged=logged)


def _signer(bundle: Bundle, envelope: dsse.Envelope, reading: rules.Reading) -> str:
    """`identity, by issuer` of the named identity that signed; "" and a failed rule when none did."""
    from sigstore.verify.policy import Identity

    verifier, reasons = _verifier(reading.trust.trusted_root), []
    for named in reading.trust.identities:
        try:
            policy = Identity(identity=named.identity, issuer=named.issuer)
            kind, payload = verifier.verify_dsse(bundle, policy)
        except _errors() as error:
            reasons.append(str(error).splitlines()[0][:160] if str(error) else type(error).__name__)
            continue
        if kind == envelope.payload_type and payload == envelope.payload:
            signer = f"{named.identity}, by {named.issuer}"
            reading.signer(signer)
            return signer
    hint = "ask for a bundle of the named identity, or name the one that signed if you believe it"
    found = "; ".join(sorted(set(reasons)))
    reading.add("reference.signature", "a bundle that verifies for a named identity", found, hint, ok=False)
    return ""


def _verifier(trusted_root: bytes) -> Verifier:
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier as Made
    from sigstore_models.trustroot.v1 import TrustedRoot as Inner

    try:
        return Made(trusted_root=TrustedRoot(Inner.from_json(trusted_root)))
    except _errors() as error:
        raise Malformed(f"sigstore trusted root: {type(error).__name__}") from error


def _bundle(data: bytes) -> Bundle:
    try:
        from sigstore.models import Bundle as Made
    except ImportError as error:
        raise Unusable("sigstore bundles need an extra", hint="pip install 'casemate[sigstore]'") from error
    try:
        return Made.from_json(data)
    except _errors() as error:
        raise Malformed(f"sigstore bundle: {type(error).__name__}") from error


def _logged(bundle: Bundle) -> datetime | None:
    """The log's time of the entry, believed only once the bundle has verified; None for logs that state none."""
    inner: Any = bundle.log_entry._inner  # the library has no public name for it
    seconds = inner.integrated_time
    try:
        return datetime.fromtimestamp(int(seconds), UTC) if seconds else None
    except (ValueError, OverflowError, OSError) as error:
        raise Malformed("sigstore bundle: the log's time is none") from error


def _errors() -> tuple[type[Exception], ...]:
    """What the library and those below it raise on hostile input."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from sigstore.errors import Error

    return (
        Error,
        *_ERRORS,
        InvalidSignature,
        UnsupportedAlgorithm,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    )
