"""Judge a Nitro attestation document: signature, chain, time, nonce, mode. Every failed rule is reported.

Rules (checks)
  nitro.signature      COSE ES384 by the key of the document's certificate
  nitro.digest         the PCRs are SHA-384
  nitro.chain.*        the certificate reaches the pinned root by cabundle, valid at `now`
  nitro.pcrs           PCR 0, 1 and 2 (image, kernel, application) are there
  nitro.time           made within 5 minutes of `now`, unless the nonce that was asked for is in it
  nitro.nonce          the document's nonce is exactly the report data that was asked for
  nitro.initdata       no initdata was asked for: Nitro has no register that the launch could bind it to
Rules (cautions)
  nitro.debug          not in debug mode, where PCR 0, 1 and 2 are zero
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from casemate.crypto import chain, cose
from casemate.errors import Malformed, Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.nitro import report as wire
from casemate.tee.roots import Root, trusted
from casemate.tee.rules import Rules

NAME = "nitro"
# SHA-256 of the root's key (DER SubjectPublicKeyInfo). The G1 certificate's SHA-256 is 641a0321...8f79bb5b.
PINS: Mapping[str, str] = MappingProxyType(
    {"AWS Nitro Enclaves root G1": "f2caf5ecc6190b4a8399b78bc58a2bbcd0382375db8a1bfd78a82743874fd225"}
)
FRESH = timedelta(minutes=5)
_BOOT_PCRS = (0, 1, 2)


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Claims of a genuine document, or `Refused` with every failed rule; `Malformed` when it is no document."""
    if evidence.tee != NAME:
        raise Unusable(f"evidence of {evidence.tee[:32]!r} was given to the Nitro room")
    document = wire.parse_evidence(evidence.primary)
    rules = Rules(NAME)
    linked = _chain(document, endorsements, now, rules)
    rules.check("digest", document.digest == "SHA384", "SHA384", document.digest)
    _time(document, request, now, rules)
    missing = [i for i in _BOOT_PCRS if i not in document.pcrs]
    rules.check("pcrs", not missing, "PCR 0, 1 and 2", f"without {missing}" if missing else "all three")
    zero = [i for i in _BOOT_PCRS if not any(document.pcrs.get(i, b""))]
    debug = bool(zero)
    found = f"PCR {zero} zero" if debug else "PCR 0, 1 and 2 are not zero"
    rules.caution("debug", not debug, "no debug mode", found, "start the enclave without --debug-mode")
    if request.initdata_digest is not None:
        rules.check("initdata", False, "no initdata", "one was asked for", "bind it by the image: it sets PCR 0 to 2")
    if rules.failed or linked is None:
        raise rules.refusal()
    path, root = linked
    made = datetime.fromtimestamp(document.timestamp / 1000, UTC)
    ends = path.not_after if request.report_data is not None else min(path.not_after or made, made + FRESH)
    production = root.platform_class == PRODUCTION
    return Claims(
        tee=NAME,
        platform_class=root.platform_class,
        memory_encrypted=production,
        debug=debug,
        measurement={f"pcr{i}": value.hex() for i, value in sorted(document.pcrs.items())},
        report_data=(document.nonce or b"").hex(),
        init_data="",
        fresh=request.report_data is not None,
        vouched_by=root.name,
        values=_values(document, made),
        checks=tuple(rules.checks),
        cautions=tuple(rules.cautions),
        valid_until=ends,
    )


def _chain(
    document: wire.Document, endorsements: Endorsements, now: datetime, rules: Rules
) -> tuple[chain.Path, Root] | None:
    """The path of the document's certificate and its root; also checks the signature with that certificate's key."""
    roots = trusted(NAME, PINS, document.cabundle, endorsements)
    links = [document.certificate, *reversed(document.cabundle)][: chain.MAX_LENGTH]
    try:
        path = chain.walk(links, [r.certificate for r in roots], now, rule="nitro.chain", leaf_usages=None)
    except Malformed as error:
        rules.check("chain.chain", False, "X.509 certificates", error, "the document was changed")
        _signature(document, None, rules)
        return None
    rules.add(path.findings)
    root = roots[path.root] if path.root is not None else None
    if root is not None and not path.findings:
        rules.check("chain.chain", True, "a path to a trusted root", root.name)
    _signature(document, path.links[0].public if path.links else None, rules)
    return (path, root) if root is not None else None


def _signature(document: wire.Document, key: object, rules: Rules) -> None:
    message = document.message
    ok = isinstance(key, ec.EllipticCurvePublicKey) and message.algorithm == cose.ES384 and message.verify(key)
    found = "signed" if ok else f"no such signature (algorithm {message.algorithm})"
    rules.check("signature", ok, "ES384 by the document's certificate", found, "the document was changed")


def _time(document: wire.Document, request: Request, now: datetime, rules: Rules) -> None:
    """A document is a moment's word: a nonce makes it fresh, else its own time must be close to `now`."""
    made = datetime.fromtimestamp(document.timestamp / 1000, UTC)
    if request.report_data is not None:
        same = bool(request.report_data) and hmac.compare_digest(request.report_data, document.nonce or b"")
        found = (document.nonce or b"").hex() or "none"
        rules.check("nonce", same, request.report_data.hex() or "a nonce that is not empty", found,
                    "the enclave answered another question")  # fmt: skip
        return
    ok = abs(now - made) <= FRESH
    rules.check("time", ok, f"within 5 minutes of {now:%Y-%m-%dT%H:%M:%SZ}", f"{made:%Y-%m-%dT%H:%M:%SZ}",
                "ask for a new document with a nonce, or judge this one at its own time")  # fmt: skip


def _values(document: wire.Document, made: datetime) -> dict[str, Any]:
    def shown(value: bytes | None) -> str | None:
        return None if value is None else value.hex()

    return {
        "module_id": document.module_id,
        "digest": document.digest,
        "timestamp": f"{made.isoformat(timespec='milliseconds')}",
        "pcrs": {str(i): value.hex() for i, value in sorted(document.pcrs.items())},
        "public_key": shown(document.public_key),
        "user_data": shown(document.user_data),
        "nonce": shown(document.nonce),
    }
