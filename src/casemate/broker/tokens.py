"""Tokens: attestation results as EAR (draft-ietf-rats-ear, CoCo's profile) in an ES256 JWT, and app statements.

The guest's key stands where CoCo's key broker looks for it (`submods.cpu0 … runtime_data_claims.tee-pubkey`) and in
`cnf` (RFC 7800). What this broker needs of its own tokens is under `casemate`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from casemate import __version__
from casemate.broker import sessions
from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import Session
from casemate.crypto import selfsigned
from casemate.schema.app import AppStatement
from casemate.schema.claims import Claims
from casemate.schema.decision import Decision
from casemate.schema.endorsements import PRODUCTION

ALGORITHM = "ES256"
ISSUER = "casemate-broker"
PROFILE = "tag:github.com,2024:confidential-containers/Trustee"
STATEMENT_TYPE = "casemate-app+jws"
MAX_TOKEN = 128 << 10
MAX_VALUES = 32 << 10


@dataclass(frozen=True)
class Signer:
    """The broker's signing key."""

    private: ec.EllipticCurvePrivateKey

    @cached_property
    def _key(self) -> ECKey:
        return ECKey.import_key(selfsigned.key_pem(self.private))

    @cached_property
    def jwk(self) -> dict[str, Any]:
        """The public key as a JWK with its thumbprint (RFC 7638) as `kid`."""
        public = {k: v for k, v in self._key.as_dict(private=False).items() if k in ("kty", "crv", "x", "y")}
        return {**public, "alg": ALGORITHM, "use": "sig", "kid": self._key.thumbprint()}

    def token(self, session: Session, evidence: dict[str, Any], status: dict[str, Any], now: datetime) -> str:
        """An EAR: `evidence` is the annotated evidence, `status` the appraisal of submodule cpu0."""
        claims = {
            "eat_profile": PROFILE,
            "iss": ISSUER,
            "iat": int(now.timestamp()),
            "exp": int(session.expires),
            "cnf": {"jwk": session.tee_pubkey},
            "ear.verifier-id": {"build": f"casemate {__version__}", "developer": "casemate"},
            "submods": {"cpu0": {**status, "ear.veraison.annotated-evidence": evidence}},
            "casemate": {
                "tee": session.tee,
                "platform_class": session.platform_class,
                "app": session.app_id,
                "manifest_digest": session.manifest_digest,
            },
        }
        header = {"typ": "JWT", "alg": ALGORITHM, "kid": self.jwk["kid"], "jwk": self.jwk}
        return jwt.encode(header, claims, self._key, algorithms=[ALGORITHM])

    def session(self, token: str, now: datetime) -> Session:
        """The session that a token of ours tells of; the header's own key is never looked at."""
        try:
            if len(token) > MAX_TOKEN:
                raise ValueError("too long")
            found = jwt.decode(token, self._key, algorithms=[ALGORITHM])
            claims = found.claims
            if found.header.get("typ") != "JWT" or claims.get("iss") != ISSUER:
                raise ValueError("not a token")
            told = {**claims["casemate"], "tee_pubkey": claims["cnf"]["jwk"], "expires": claims["exp"]}
            session = msgspec.convert({"app_id": told.pop("app"), **told, "type": "session"}, Session)
        except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError, msgspec.ValidationError):
            raise Unauthenticated.because(
                "session.token",
                expected="a token that this broker signed",
                found="another one",
                hint="attest at this broker: /kbs/v0/auth, then /kbs/v0/attest",
            ) from None
        if session.expires <= now.timestamp():
            raise sessions.expired()
        return session

    def statement(self, statement: AppStatement) -> str:
        """A compact JWS over an app's statement; its type keeps it apart from tokens."""
        header = {"typ": STATEMENT_TYPE, "alg": ALGORITHM, "kid": self.jwk["kid"]}
        return jws.serialize_compact(header, msgspec.json.encode(statement), self._key, algorithms=[ALGORITHM])


def annotated(claims: Claims, nonce: str, tee_pubkey: dict[str, Any], additional: str) -> dict[str, Any]:
    """CoCo's `ear.veraison.annotated-evidence`. Values too long for an HTTP header are left out, and said to be."""
    values = claims.values
    if len(json.dumps(values, default=str)) > MAX_VALUES:
        values = {"omitted": "too long for a token"}
    return {
        claims.tee: values,
        "report_data": claims.report_data,
        "init_data": claims.init_data,
        "runtime_data_claims": {"nonce": nonce, "tee-pubkey": tee_pubkey, "additional-evidence": additional[:1024]},
    }


def status(claims: Claims, decision: Decision) -> dict[str, Any]:
    """AR4SI: the worst claim gives the status. A development platform never affirms (hardware 32: unsafe)."""
    measured = all(f.ok for f in decision.findings if f.rule.startswith("measurement."))
    vector = {
        "instance-identity": 0,
        "configuration": 2 if decision.allowed else 36,
        "executables": 3 if measured else 33,
        "file-system": 0,
        "hardware": 2 if claims.platform_class == PRODUCTION else 32,
        "runtime-opaque": 2 if claims.memory_encrypted else 32,
        "storage-opaque": 0,
        "sourced-data": 0,
    }
    worst = max(vector.values())
    name = "affirming" if worst < 32 else "warning" if worst < 96 else "contraindicated"
    return {"ear.status": name, "ear.appraisal-policy-id": "casemate", "ear.trustworthiness-vector": vector}
