"""Make an SE request: keys for the Ultravisor of each machine whose host-key document holds, and for nobody else.

Whoever can open a request can also write its answer. So the documents are judged before a key is wrapped for them, and
`verify` judges them again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec

from casemate.errors import Refused, Unusable
from casemate.schema.endorsements import Endorsements, Secrets
from casemate.tee.roots import trusted
from casemate.tee.se import arcb, hostkey
from casemate.tee.se.report import Challenge, Tags

REQUEST, KEY, RSA = "se.request", "se.request-key", "se.rsa-key"
LIST = "crl"
MEASUREMENT_SIZE = 64


@dataclass(frozen=True)
class Asked:
    """A request: `challenge` is sent to the guest and kept, `secrets` are kept alone. Both are for one answer."""

    challenge: bytes
    secrets: Secrets


def papers(endorsements: Endorsements, now: datetime) -> hostkey.Papers:
    """What host-key documents are judged by. A list is every entry of the collateral with `crl` in its name.

    No root is pinned: IBM has the signing certificate issued by a public authority, and may change it. The relying
    party anchors the root for the TEE `se`, as it gives pvattest one.
    """
    lists = [data for name, data in sorted(endorsements.collateral.items()) if LIST in name]
    return hostkey.Papers(endorsements.certificates, trusted("se", {}, (), endorsements), lists, now)


def ask(endorsements: Endorsements, tags: Tags, now: datetime, *, report_data: bytes | None = None) -> Asked:
    """A request for an image with `tags`, which every machine with a good document in `endorsements` can answer.

    `Refused` when one of the documents breaks a rule; `Unusable` when there is none.
    """
    found = hostkey.documents(endorsements.certificates)
    if not found:
        raise Unusable("se: no host-key document is given", hint="give the document of the machine that will answer")
    keys: list[ec.EllipticCurvePublicKey] = []
    for documents in found.values():
        judged = hostkey.judge_key(documents, papers(endorsements, now), rule="se.host-key")
        if judged.root is None or judged.failed:
            raise Refused(judged.findings)
        key = hostkey.host_key(documents[0])
        keys += [key] if key is not None else []
    protection, asker = os.urandom(32), ec.generate_private_key(ec.SECP521R1())
    blob = arcb.build(keys, asker, key=protection, iv=os.urandom(12), secret=os.urandom(80))
    wanted = sum(size for flag, size in arcb.ADDITIONAL.values() if arcb.DEFAULT & flag)
    challenge = Challenge(blob, MEASUREMENT_SIZE, wanted, (b"", b""), tags, report_data)
    return Asked(challenge.pack(), Secrets({KEY: protection}))
