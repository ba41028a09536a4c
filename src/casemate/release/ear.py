"""Attestation results as EAR (draft-ietf-rats-ear, CoCo's profile): one shape for the broker and for `casemate verify`.

    {"eat_profile", "iss", "iat", "exp", "ear.verifier-id", "casemate.judged-at"?, "casemate.freshness"?,
     "submods": {"cpu0": {
        "ear.status", "ear.appraisal-policy-id", "ear.trustworthiness-vector": {8 claims of AR4SI},
        "ear.veraison.annotated-evidence": {"<tee>": values, "report_data", "init_data", "runtime_data_claims"?}}}}

A token is this in a JWT under ES256 (RFC 7519, RFC 7518 section 3.4). The vector is draft-ietf-rats-ar4si: 2 to 31
affirm, 32 to 95 warn, 96 and above contraindicate, 0 says nothing; the worst claim gives the status. A result of a
verification (`document`) contraindicates what the policy refused: measurements as executables (96), the debug mode and
other cautions as configuration (96), a TCB as hardware (96), a development platform as hardware that nobody recognises
(97). Those that a relying party accepted by name are warnings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from casemate.crypto import jwk
from casemate.errors import Finding, Unusable
from casemate.release.submods import PRIMARY, parts
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION
from casemate.wire import jcs
from casemate.wire.encoding import b64u

ALGORITHM = "ES256"
PROFILE = "tag:github.com,2024:confidential-containers/Trustee"
MAX_VALUES = 32 << 10
MAX_DEVICES = 64 << 10  # of all devices together
MAX_INITDATA = 8 << 10
MAX_ADDITIONAL = 1 << 10
LIFETIME = timedelta(minutes=5)
_MEASURED = ("measurement.", "reference.", "policy.measurement.")
_AFFIRMED, _BOOT, _UNSAFE, _UNKNOWN, _MISCONFIGURED = 2, 3, 32, 33, 36
_REFUSED, _UNRECOGNISED = 96, 97
_LONGER = 6  # at most so many times as long is JSON with spaces, and with letters beyond ASCII escaped


def document(
    claims: Claims,
    findings: Iterable[Finding],
    now: datetime,
    *,
    issuer: str,
    version: str,
    at: datetime | None = None,
    until: datetime | None = None,
    fresh: bool | None = None,
) -> dict[str, Any]:
    """The claims of a token about one attester; `findings` are the rules that a policy applied to `claims`.

    `version` is this program's, `issuer` the name under which its key is known. `at` is the time as of which the
    evidence was judged (by default `now`, when the token is made), `until` when the result ends and `fresh` whether
    all of it answered a question; by default what the claims say. The token ends with the result: one about the past
    may have ended before it was made.
    """
    ends = until if until is not None else claims.valid_until
    lasts = now + LIFETIME if ends is None else min(now + LIFETIME, ends)
    judged = {**status(claims, findings, refuses=True), "ear.veraison.annotated-evidence": annotated(claims)}
    return {
        "eat_profile": PROFILE,
        "iss": issuer,
        "iat": int(now.timestamp()),
        "exp": int(lasts.timestamp()),
        "ear.verifier-id": verifier(version),
        "casemate.judged-at": int((at or now).timestamp()),
        "casemate.freshness": "checked" if (claims.fresh if fresh is None else fresh) else "not checked",
        "submods": {"cpu0": judged},
    }


def submods(
    judged: Sequence[Claims],
    findings: Iterable[Finding],
    runtime: dict[str, Any],
    initdata: dict[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Every submodule of a session's result: the machine under all `findings`, each device under those of its room.

    `runtime` is what the primary evidence bound (`nonce`, `tee-pubkey`, `additional-evidence`); a device binds no
    additional evidence. `initdata` are the claims of the document that was bound, None where none was.
    """
    rules = list(findings)
    bare = {name: value for name, value in runtime.items() if name != "additional-evidence"}
    found: dict[str, dict[str, Any]] = {}
    room = MAX_DEVICES
    for part in parts(judged):
        own = part.claims.tee
        primary = part.kind == PRIMARY
        told = rules if primary else [rule for rule in rules if rule.rule.startswith(f"{own}.")]
        shown = _bounded(part.values, MAX_VALUES if primary else room)
        room -= 0 if primary else len(json.dumps(shown, default=str))
        evidence = {**annotated(part.claims, runtime if primary else bare), own: shown}
        if primary and initdata is not None:
            evidence["init_data_claims"] = _bounded(initdata, MAX_INITDATA)
        found[part.name] = {**status(part.claims, told), "ear.veraison.annotated-evidence": evidence}
    return found


def runtime(nonce: str, tee_pubkey: dict[str, Any], additional: str) -> dict[str, Any]:
    """The runtime data claims. Long additional evidence is left out, as CoCo's `verbose_token = false` does."""
    found: dict[str, Any] = {"nonce": nonce, "tee-pubkey": tee_pubkey}
    return found if len(additional) > MAX_ADDITIONAL else {**found, "additional-evidence": additional}


def verifier(version: str) -> dict[str, str]:
    """Who made the result."""
    return {"build": f"casemate {version}", "developer": "casemate"}


def annotated(claims: Claims, runtime: dict[str, Any] | None = None) -> dict[str, Any]:
    """CoCo's annotated evidence. Values too long for an HTTP header are left out, and said to be.

    `runtime` are the runtime data claims, where the verifier was given the data that the report data stands for.
    """
    values = _bounded(claims.values, MAX_VALUES)
    found = {claims.tee: values, "report_data": claims.report_data, "init_data": claims.init_data}
    return found if runtime is None else {**found, "runtime_data_claims": runtime}


def _bounded(values: dict[str, Any], limit: int) -> dict[str, Any]:
    if _LONGER * len(jcs.compact(values)) <= limit:
        return values
    return {"omitted": "too long for a token"} if len(json.dumps(values, default=str)) > limit else values


def status(
    claims: Claims, findings: Iterable[Finding], policy: str = "casemate", *, refuses: bool = False
) -> dict[str, Any]:
    """AR4SI status and vector. A development platform never affirms; measurements that nobody compared say nothing.

    With `refuses` a failed finding is a refusal, and contraindicated; without, a policy is still to decide.
    """
    rules = list(findings)
    measured = [f.ok for f in rules if f.rule.startswith(_MEASURED)]
    sound = claims.platform_class == PRODUCTION and all(f.ok for f in rules if f.rule == "platform.tcb")
    vector = {
        "instance-identity": 0,
        "configuration": _AFFIRMED if all(f.ok for f in rules) else _MISCONFIGURED,
        "executables": (_BOOT if all(measured) else _UNKNOWN) if measured else 0,
        "file-system": 0,
        "hardware": _AFFIRMED if sound else _UNSAFE,
        "runtime-opaque": _AFFIRMED if claims.memory_encrypted else _UNSAFE,
        "storage-opaque": 0,
        "sourced-data": 0,
    }
    if refuses:
        vector |= _contraindicated(claims, [f for f in rules if not f.ok])
    worst = max(vector.values())
    name = "affirming" if worst < _UNSAFE else "warning" if worst < 96 else "contraindicated"
    return {"ear.status": name, "ear.appraisal-policy-id": policy, "ear.trustworthiness-vector": vector}


def _contraindicated(claims: Claims, failed: Sequence[Finding]) -> dict[str, int]:
    """What refusals say (AR4SI section 2.3.4): each under the claim that it is about, all others as configuration."""
    found: dict[str, int] = {}
    for finding in failed:
        if finding.rule.startswith(_MEASURED):
            found["executables"] = _REFUSED
        elif finding.rule == "platform.tcb":
            found["hardware"] = max(_REFUSED, found.get("hardware", 0))
        elif finding.rule == "platform.class":
            found["hardware"] = _UNRECOGNISED
        else:
            found["configuration"] = _REFUSED
    if claims.debug and "configuration" in found:
        found["runtime-opaque"] = _REFUSED  # whoever debugs sees the memory
    return found


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    """The JWK of a signing key, with its thumbprint (RFC 7638) as `kid`."""
    if key.curve.name != "secp256r1":
        raise Unusable("a token is signed by a key on P-256", hint="openssl ecparam -name prime256v1 -genkey")
    found = {name: value for name, value in jwk.from_public_key(key).items() if name != "alg"}
    thumbprint = b64u(hashlib.sha256(jcs.canonical(found)).digest())
    return {**found, "alg": ALGORITHM, "use": "sig", "kid": thumbprint}


def sign(claims: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> str:
    """A JWT of these claims in compact form; `key` is on P-256."""
    public = public_jwk(key.public_key())
    header = {"typ": "JWT", "alg": ALGORITHM, "kid": public["kid"], "jwk": public}
    message = ".".join(b64u(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    r, s = decode_dss_signature(key.sign(message.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{message}.{b64u(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
