"""The SE challenge of a key broker session: CoCo's `SeAttestationRequest` as the nonce, SHA-512 of runtime data.

The operator's papers are a folder with the host-key documents of all machines, their signing certificates and
revocation lists, and the boot image or its header. The key of each request goes into the session's sealed state: only
who has it can judge the answer, and nobody else can make one up.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from casemate.errors import Malformed, Unusable
from casemate.schema.endorsements import Endorsements, Secrets
from casemate.tee.asking import Question
from casemate.tee.files import Case
from casemate.tee.se import ask, report
from casemate.tee.se.measure import MAGIC, image_tags

HASH = "sha512"


def question(case: Case, endorsements: Endorsements, now: datetime) -> Question:
    """A request that every machine with a good document can answer."""
    asked = ask.ask(_papers(case, endorsements), _tags(case), now)
    return Question(asked.challenge.decode(), {ask.KEY: asked.secrets.get(ask.KEY) or b""})


def endorsements(case: Case, gathered: Endorsements, question: Question) -> Endorsements:
    """The papers, the request that was made and its key."""
    papers = _papers(case, gathered)
    collateral = {**papers.collateral, ask.REQUEST: question.nonce.encode()}
    return msgspec.structs.replace(papers, collateral=collateral, secrets=Secrets(question.state))


def _papers(case: Case, given: Endorsements) -> Endorsements:
    lists = {f"{ask.LIST}.{number}": data for number, data in enumerate(case.crls)}
    return msgspec.structs.replace(given, certificates=case.certificates, collateral=lists)


def _tags(case: Case) -> report.Tags:
    """The tags of the one image: of its file, or of 208 bytes as pvattest's tools cut them out."""
    found = []
    for file in case.blobs:
        if MAGIC in file.data[:0x15008]:
            found.append(image_tags(file.data))
            continue
        try:
            found.append(report.Tags.parse(file.data))
        except Malformed:
            continue
    if len(found) != 1:
        raise Unusable(
            f"se: {len(found)} boot images or headers among this TEE's papers, one is wanted",
            hint="put the image that guests start from beside the host-key documents (setting `papers`)",
        )
    return found[0]
