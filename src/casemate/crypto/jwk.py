"""The guest's ephemeral key as a JWK, exactly in the members that CoCo hashes (KBS protocol 0.4.0, tee-pubkey).

An extra member would change the hash that the other side computes from its parsed form, so none is kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from casemate.errors import Malformed
from casemate.wire.encoding import b64u, unb64u

ALGORITHM = "ECDH-ES+A256KW"
_REMEMBERED = 1024
_CURVES: dict[str, tuple[ec.EllipticCurve, int]] = {"P-256": (ec.SECP256R1(), 32), "P-521": (ec.SECP521R1(), 66)}


def from_public_key(key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    """`{"kty","crv","alg","x","y"}` with coordinates of fixed width (RFC 7518 section 6.2.1)."""
    name = {"secp256r1": "P-256", "secp521r1": "P-521"}.get(key.curve.name)
    if name is None:
        raise Malformed(f"tee-pubkey: curve {key.curve.name} is not in the protocol")
    width = _CURVES[name][1]
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
    return {"kty": "EC", "crv": name, "alg": ALGORITHM, "x": b64u(point[:width]), "y": b64u(point[width:])}


def ec_public_key(jwk: dict[str, Any]) -> ec.EllipticCurvePublicKey:
    """The EC key of a tee-pubkey; a point off its curve is `Malformed`."""
    curve_name = jwk.get("crv")
    if jwk.get("kty") != "EC" or not isinstance(curve_name, str) or curve_name not in _CURVES:
        raise Malformed("tee-pubkey: an EC key on P-256 or P-521 is wanted")
    return _ec(curve_name, str(jwk.get("x", "")), str(jwk.get("y", "")))


@lru_cache(maxsize=_REMEMBERED)
def _ec(curve_name: str, x: str, y: str) -> ec.EllipticCurvePublicKey:
    """A broker meets a guest's key when it attests and at each resource."""
    curve, width = _CURVES[curve_name]
    point = unb64u(x, "tee-pubkey.x", size=width) + unb64u(y, "tee-pubkey.y", size=width)
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + point)
    except ValueError as error:
        raise Malformed("tee-pubkey: the point is not on its curve") from error
