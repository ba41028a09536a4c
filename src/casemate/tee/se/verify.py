"""Judge an SE measurement: the request was ours, only true machines could answer it, and the answer is whole.

The measurement is an HMAC, so it convinces nobody but the asker: the request (`se.request` in the collateral) and its
key (`se.request-key` or `se.rsa-key` in the secrets) are the verifier's own. Evidence that brings its own key along, as
CoCo's form does, is judged by the keys of the request that was made, never by those.

Rules (checks)
  se.given.*                request, its key, root, host-key documents, revocation lists: without one nobody can judge
  se.request                the request opens with its key
  se.echo                   what the asker sent along for itself came back unchanged, and names the same image
  se.measurement            HMAC-SHA-512 over image tags, configuration, user data, nonce, additional data
  se.additional             the additional data has the size that the request asked for
  se.answering-host         the machine that answered is one that the request names
  se.host-key.*             each machine that could answer has a document that holds (`casemate.tee.se.hostkey`)
  se.report_data            the user data is what was asked for
  se.initdata               no initdata was asked for: the image is measured whole, and nothing else binds it
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from casemate.errors import Malformed, Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.roots import Root
from casemate.tee.rules import Rules
from casemate.tee.se import arcb, exchange, hostkey
from casemate.tee.se import report as wire
from casemate.tee.se.ask import KEY, REQUEST, RSA, papers
from casemate.tee.se.measure import values

NAME = "se"
_NO_LISTS = "host-key.chain.lists", "host-key.revoked"


@dataclass(frozen=True)
class _Issued:
    """The request as it was made; `challenge` is None where only the control block was kept."""

    block: arcb.Arcb
    challenge: wire.Challenge | None


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Claims of a whole answer, or `Refused` with every failed rule; `Unusable` without request, key or documents."""
    if evidence.tee != NAME:
        raise Unusable(f"evidence of {evidence.tee[:32]!r} was given to the SE room")
    if evidence.primary.get("image_hdr_tags") == "":  # pvattest's file leaves them out
        raise Unusable("se: cannot be judged without the tags of the image", hint="give the image, or its header")
    response = wire.parse_evidence(evidence.primary)
    rules = Rules(NAME)
    issued = _issued(endorsements, rules)
    additional: dict[str, bytes] = {}
    root, ends = None, None
    if issued is not None:
        keys = _keys(issued, endorsements, rules)
        _answer(response, issued, keys, rules)
        additional = _additional(response, issued, rules)
        root, ends = _hosts(issued.block, endorsements, now, rules)
    if request.report_data is not None:
        rules.register("report_data", request.report_data, response.user, "the guest answered another question")
    if request.initdata_digest is not None:
        rules.check(
            "initdata", False, "no initdata", "one was asked for", "bind it by the image: its tags are measured"
        )
    rules.settle("given.")
    if root is None or issued is None:
        raise rules.refusal()
    production = root.platform_class == PRODUCTION
    return Claims(
        tee=NAME,
        platform_class=root.platform_class,
        memory_encrypted=production,
        debug=False,
        measurement=values(response.tags),
        report_data=response.user.hex(),
        init_data="",
        fresh=request.report_data is not None,
        vouched_by=root.name,
        values=_values(response, additional),
        checks=tuple(rules.checks),
        cautions=tuple(rules.cautions),
        valid_until=ends,
        rests_on=("pld",),  # a tag alone can be made to order by whoever builds an image (README.md)
    )


def _issued(endorsements: Endorsements, rules: Rules) -> _Issued | None:
    data = endorsements.collateral.get(REQUEST)
    rules.check("given.request", data is not None, f"the request that was made ({REQUEST})",
                "given" if data is not None else "none", "keep each request until its answer is judged")  # fmt: skip
    if data is None:
        return None
    if data.lstrip()[:1] == b"{":
        challenge = wire.parse_challenge(data)
        return _Issued(arcb.parse(challenge.blob), challenge)
    blob = exchange.parse(data).request if data.startswith(exchange.MAGIC) else data
    return _Issued(arcb.parse(blob), None)


def _keys(issued: _Issued, endorsements: Endorsements, rules: Rules) -> tuple[bytes, bytes] | None:
    """(measurement key, nonce) of the request that was made."""
    secret, private = endorsements.secrets.get(KEY), endorsements.secrets.get(RSA)
    given = secret is not None or (private is not None and issued.challenge is not None)
    if not rules.check("given.request-key", given, f"the key of the request ({KEY} or {RSA})",
                       "given" if given else "none", "only who made the request can judge its answer"):  # fmt: skip
        return None
    if secret is not None:
        keys = issued.block.open(secret)
    else:
        keys = _unwrapped(private or b"", issued.challenge.echo if issued.challenge else (b"", b""))
    rules.check("request", keys is not None, "the request opens with its key", "opened" if keys else "it does not",
                "the key is another request's, or the request was changed")  # fmt: skip
    return keys


def _unwrapped(private: bytes, echo: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
    """What the asker encrypted for itself when it made the request (RSA, PKCS #1 v1.5, as CoCo's broker does)."""
    try:
        key = load_pem_private_key(private, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Malformed(f"{RSA}: a private RSA key in PEM is wanted") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Malformed(f"{RSA}: a private RSA key is wanted")
    try:
        measurement, nonce = (key.decrypt(part, padding.PKCS1v15()) for part in echo)
    except ValueError:
        return None
    return (measurement, nonce) if (len(measurement), len(nonce)) == (64, 16) else None


def _answer(response: wire.Response, issued: _Issued, keys: tuple[bytes, bytes] | None, rules: Rules) -> None:
    if issued.challenge is not None:
        sent, back = issued.challenge.echo, response.echo
        same = all(hmac.compare_digest(a, b) for a, b in zip(sent, back, strict=True))
        rules.check("echo", same, "the sealed keys of the request that was made", "the same" if same else "others",
                    "this is the answer to another request")  # fmt: skip
        rules.equal("image", issued.challenge.tags.pack(), response.tags.pack(), "the guest runs another image")
    if keys is None:
        return
    key, nonce = keys
    data = wire.measured(response.tags, response.cuid, response.user, nonce, response.additional)
    digest = hmac.new(key, data, hashlib.sha512).digest()
    ok = hmac.compare_digest(digest, response.measurement)
    # The right value is not shown: it would be the answer that a forger lacks.
    rules.check("measurement", ok, "HMAC-SHA-512 with the request's key", "the same" if ok else "another",
                "the answer was changed, or is to another request")  # fmt: skip


def _additional(response: wire.Response, issued: _Issued, rules: Rules) -> dict[str, bytes]:
    found = issued.block.additional(response.additional)
    rules.check("additional", found is not None, "additional data of the size that was asked for",
                f"{len(response.additional)} bytes", "this is the answer to another request")  # fmt: skip
    host = (found or {}).get("attestation_phkh")
    if host is not None:
        ok = any(hmac.compare_digest(host, slot.host) for slot in issued.block.slots)
        rules.check("answering-host", ok, "a machine that the request names", host.hex(), "another machine answered")
    return found or {}


def _hosts(
    block: arcb.Arcb, endorsements: Endorsements, now: datetime, rules: Rules
) -> tuple[Root | None, datetime | None]:
    """Judge the document of every machine that could open the request; the root of all, and when the first ends."""
    anchored = bool(endorsements.anchors_for(NAME))
    if not rules.check("given.root", anchored, "a root for host-key documents", "given" if anchored else "none",
                       "give the root that you trust as an anchor for se"):  # fmt: skip
        return None, None
    documents = hostkey.documents(endorsements.certificates)
    missing = [slot.host.hex() for slot in block.slots if slot.host not in documents]
    rules.check("given.host-key-document", not missing, "a document of every machine that could answer",
                "without " + ", ".join(missing) if missing else f"{len(block.slots)}",
                "give the host-key documents that the request was made for")  # fmt: skip
    known = [documents[slot.host] for slot in block.slots if slot.host in documents]
    judged = [hostkey.judge_key(found, papers(endorsements, now), rule=f"{NAME}.host-key") for found in known]
    for one in judged:
        rules.add([f for f in one.findings if f.ok or not _absent(one, f.rule)])
        names = [f.rule for f in one.findings if not f.ok and _absent(one, f.rule)]
        if names:
            rules.check("given.revocation-lists", False, "a revocation list of each issuer", "none for " + names[0],
                        "give the lists of root, intermediate and signing service")  # fmt: skip
    if missing or not judged or any(one.root is None for one in judged):
        return None, None
    weakest = min((one.root for one in judged if one.root), key=lambda r: r.platform_class == PRODUCTION)
    return weakest, min(one.not_after for one in judged if one.not_after)


def _absent(judged: hostkey.Judged, rule: str) -> bool:
    return not judged.lists and rule.removeprefix(f"{NAME}.") in _NO_LISTS


def _values(response: wire.Response, additional: dict[str, bytes]) -> dict[str, Any]:
    """The claims under CoCo's names, and what else the additional data tells."""
    return {
        "version": arcb.VERSION,
        "cuid": response.cuid.hex(),
        "tag": response.tags.tag.hex(),
        "image_phkh": additional.get("image_phkh", b"").hex(),
        "attestation_phkh": additional.get("attestation_phkh", b"").hex(),
        "secret_store_hash": additional.get("secret_store_hash", b"").hex(),
        "firmware_state": additional.get("firmware_state", b"").hex(),
        "report_data": response.user.hex(),
        "user_data": response.user.hex(),
    }
