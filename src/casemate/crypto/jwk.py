"""The guest's ephemeral key as a JWK, exactly in the members that CoCo hashes (KBS protocol 0.4.0, tee-pubkey).

An extra member would change the hash that the other side computes from its parsed form, so none is kept.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from casemate.errors import Malformed
from casemate.wire.encoding import b64u, unb64u

ALGORITHM = "ECDH-ES+A256KW"
_CURVES: dict[str, tuple[ec.EllipticCurve, int]] = {"P-256": (ec.SECP256R1(), 32), "P-521": (ec.SECP521R1(), 66)}


def from_public_key(key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    """`{"kty","crv","alg","x","y"}` with coordinates of fixed width (RFC 7518 section 6.2.1)."""
    name = {"secp256r1": "P-256", "secp521r1": "P-521"}.get(key.curve.name)
    if name is None:
        raise Malformed(f"tee-pubkey: curve {key.curve.name} is not in the protocol")
    width = _CURVES[name][1]
    numbers = key.public_numbers()
    return {
        "kty": "EC",
        "crv": name,
        "alg": ALGORITHM,
        "x": b64u(numbers.x.to_bytes(width, "big")),
        "y": b64u(numbers.y.to_bytes(width, "big")),
    }


def ec_public_key(jwk: dict[str, Any]) -> ec.EllipticCurvePublicKey:
    """The EC key of a tee-pubkey; a point off its curve is `Malformed`."""
    curve_name = jwk.get("crv")
    if jwk.get("kty") != "EC" or not isinstance(curve_name, str) or curve_name not in _CURVES:
        raise Malformed("tee-pubkey: an EC key on P-256 or P-521 is wanted")
    curve, width = _CURVES[curve_name]
    x, y = (unb64u(str(jwk.get(part, "")), f"tee-pubkey.{part}", size=width) for part in ("x", "y"))
    try:
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve)
        return numbers.public_key()
    except ValueError as error:
        raise Malformed("tee-pubkey: the point is not on its curve") from error
