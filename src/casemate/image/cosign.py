"""Image signatures in cosign's simple-signing form: a JSON payload and ECDSA P-256 with SHA-256 over its raw bytes.

Spec: sigstore cosign SIGNATURE_SPEC, containers/image simple signing. A signature of image ``sha256:<hex>`` lies in the
same repository at tag ``sha256-<hex>.sig``: a manifest whose layers are payloads, each with its signature as an
annotation. What is believed: a payload signed by a known key, for exactly this digest, for this repository, in a
repository that the key may sign. Bytes are verified before they are parsed.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Sequence

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from casemate.crypto import pins
from casemate.errors import Finding, Malformed, Refused, Unusable
from casemate.image import manifest as oci
from casemate.image import reference as names
from casemate.schema.manifest import Signer
from casemate.wire import jcs
from casemate.wire.encoding import b64, unb64

MEDIA_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
PAYLOAD_TYPES = ("cosign container image signature", "atomic container signature")
MAX_PAYLOAD = 64 << 10
# SubjectPublicKeyInfo of id-ecPublicKey on prime256v1, up to the 0x04 of an uncompressed point (RFC 5480).
_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
MAX_SIGNATURES = 64


class Signature(msgspec.Struct, frozen=True):
    """A payload as stored, and the DER signature over exactly these bytes."""

    payload: bytes
    signature: bytes


def tag(digest: str) -> str:
    """Where the signatures of `digest` lie: ``sha256-<hex>.sig``."""
    return digest.replace(":", "-") + ".sig"


def payload(name: str, digest: str) -> bytes:
    """The document to sign: `name` is ``registry/repository``, `digest` the image manifest's."""
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": digest},
        "type": PAYLOAD_TYPES[0],
    }
    return json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()


def sign(name: str, digest: str, private_key_pem: bytes) -> Signature:
    """Sign `digest` as `name` with an EC P-256 private key."""
    text = payload(name, digest)
    return Signature(text, _private(private_key_pem).sign(text, ec.ECDSA(hashes.SHA256())))


def public_pem(private_key_pem: bytes) -> str:
    """The public half, as the manifest's `signers` want it."""
    from cryptography.hazmat.primitives import serialization

    public = _private(private_key_pem).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(serialization.Encoding.PEM, form).decode("ascii")


def signature_manifest(signatures: Sequence[Signature]) -> tuple[bytes, bytes]:
    """(manifest, configuration) of the signature image; its layer blobs are the payloads."""
    diff_ids = tuple(pins.digest(item.payload) for item in signatures)
    config = oci.encode(oci.Config("", "", oci.RootFs("layers", diff_ids), oci.Process()))
    layers = tuple(
        oci.Descriptor(MEDIA_TYPE, pins.digest(item.payload), len(item.payload), {ANNOTATION: b64(item.signature)})
        for item in signatures
    )
    described = oci.Descriptor(oci.OCI_CONFIG, pins.digest(config), len(config))
    return oci.encode(oci.Manifest(2, described, layers, oci.OCI_MANIFEST)), config


def stored(manifest: oci.Manifest) -> list[tuple[oci.Descriptor, bytes]]:
    """(payload descriptor, signature) of each signature in a signature manifest."""
    if len(manifest.layers) > MAX_SIGNATURES:
        raise Malformed(f"signature manifest: {len(manifest.layers)} signatures, at most {MAX_SIGNATURES} allowed")
    found = []
    for layer in manifest.layers:
        text = layer.annotation(ANNOTATION)
        if layer.media_type == MEDIA_TYPE and text is not None:
            if layer.size > MAX_PAYLOAD:
                raise Malformed(f"signature payload: {layer.size} bytes, at most {MAX_PAYLOAD} allowed")
            found.append((layer, unb64(text, "signature")))
    return found


def verify(image: names.Reference, signatures: Iterable[Signature], signers: Sequence[Signer]) -> Finding:
    """The passed finding of the first signature that holds for the pinned `image`; else `Refused` with every reason."""
    if image.digest is None:
        raise Unusable(f"{image}: only an image named by digest can be verified")
    allowed = [signer for signer in signers if any(names.matches(pattern, image.name) for pattern in signer.images)]
    if not allowed:
        raise Refused.because(
            "image.signature.signer",
            expected=f"a signer who may sign {image.name}",
            found=", ".join(sorted({pattern for signer in signers for pattern in signer.images})) or "no signers",
            hint="add the repository to a signer's images in the manifest",
        )
    keys = [_public(signer.key) for signer in allowed]
    findings = [_judge(image, item, keys) for item in signatures]
    for finding in findings:
        if finding.ok:
            return finding
    raise Refused(
        findings
        or [
            Finding(
                "image.signature.missing",
                f"a signature of {image.digest}",
                "none in the registry",
                f"sign the image: its signature belongs at tag {tag(image.digest)}",
            )
        ]
    )


def _judge(image: names.Reference, item: Signature, keys: Sequence[ec.EllipticCurvePublicKey]) -> Finding:
    """One signature against every allowed key, then its payload against the image."""
    if not any(_holds(key, item) for key in keys):
        return Finding(
            "image.signature.key",
            "a signature by a signer of the manifest",
            "a signature by another key",
            "sign the image with a key that the manifest names, or name its key in the manifest",
        )
    try:
        digest, name = _read(item.payload)
    except Malformed as error:
        return Finding("image.signature.payload", "a simple-signing payload", str(error))
    if not hmac.compare_digest(digest, image.digest or ""):
        return Finding("image.signature.digest", image.digest or "", digest, "this signature is of another image")
    if name != image.name:
        return Finding(
            "image.signature.identity",
            image.name,
            name,
            "sign with the name that the manifest uses (casemate image sign --identity, cosign "
            "--sign-container-identity)",
        )
    return Finding("image.signature", image.digest or "", f"signed for {name}", ok=True)


def _read(text: bytes) -> tuple[str, str]:
    """(digest, registry/repository) of a payload; skopeo writes a tag behind the repository, which says nothing."""
    document = jcs.parse_object(text, "signature payload", limit=MAX_PAYLOAD)
    critical = document.get("critical")
    try:
        digest = critical["image"]["docker-manifest-digest"]  # type: ignore[index] # anything odd is caught below
        reference = critical["identity"]["docker-reference"]  # type: ignore[index] # as above
        kind = critical["type"]  # type: ignore[index] # as above
    except (TypeError, KeyError, IndexError) as error:
        raise Malformed("signature payload: a member of critical is missing") from error
    if kind not in PAYLOAD_TYPES or not isinstance(digest, str) or not pins.is_digest(digest):
        raise Malformed("signature payload: not an image signature")
    if not isinstance(reference, str):
        raise Malformed("signature payload: docker-reference is not text")
    return digest, names.parse(reference).name


def _holds(key: ec.EllipticCurvePublicKey, item: Signature) -> bool:
    try:
        key.verify(item.signature, item.payload, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _public(pem: str) -> ec.EllipticCurvePublicKey:
    """A P-256 key in PEM (RFC 5480, uncompressed point), read without the library's loader for all formats.

    That loader costs a tenth of a second in an emulated guest, and this form is fixed: a prefix and the point.
    """
    body = pem.strip().removeprefix("-----BEGIN PUBLIC KEY-----").removesuffix("-----END PUBLIC KEY-----")
    der = unb64("".join(body.split()), "signer's key")
    if len(der) != len(_P256) + 64 or not der.startswith(_P256):
        raise Malformed("signer's key: an EC P-256 public key in PEM is wanted")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), der[len(_P256) - 1 :])
    except ValueError as error:
        raise Malformed("signer's key: the point is not on its curve") from error


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization

    if b"ENCRYPTED" in pem:
        raise Unusable(
            "signing key: encrypted keys are not read", hint="sign with cosign itself, or give a plain PEM key"
        )
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unusable("signing key: not a PEM private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise Unusable("signing key: an EC P-256 key is wanted")
    return key
