"""CoCo's sealed secrets, made as its tool makes them (SEALED_SECRET.md), for tests."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from casemate.wire.encoding import b64u


def packed(document: dict[str, Any]) -> str:
    """A part of a JWS."""
    return b64u(json.dumps(document).encode())


class Sealer:
    """A signing key whose public JWK is kept at `kid`."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> bytes:
        """The public key as it is stored at the key broker."""
        numbers = self._key.public_key().public_numbers()
        x, y = (b64u(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        return json.dumps({"kty": "EC", "crv": "P-256", "alg": "ES256", "x": x, "y": y}).encode()

    def header(self) -> str:
        """The protected header, as JSON."""
        return json.dumps({"alg": "ES256", "kid": self.kid})

    def payload(self, name: str) -> str:
        """The payload of type `vault`, as JSON."""
        said = {"version": "0.1.0", "type": "vault", "name": name, "provider": "kbs"}
        return json.dumps({**said, "provider_settings": {}, "annotations": {}})

    def vault(self, name: str) -> str:
        """A sealed secret that names a resource."""
        signed = f"{b64u(self.header().encode())}.{b64u(self.payload(name).encode())}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"sealed.{signed}.{b64u(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
