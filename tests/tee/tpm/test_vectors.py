"""A recorded boot of a guest image under OVMF and swtpm: what a VM really sends, with its registers as predicted."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path

import pytest

from casemate.errors import Refused
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.tpm import verify
from casemate.wire.encoding import unb64

VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "tpm" / "direct-boot.json").read_text())
AT = datetime.fromisoformat(VECTOR["as_of"])
ANCHORS = Endorsements(anchors=(Anchor(certificate=unb64(VECTOR["anchor"]), name="recorded"),))
DOCUMENT = unb64(VECTOR["initdata"])
REQUEST = Request(report_data=b"v" * 48, initdata_digest=hashlib.sha256(DOCUMENT).digest())
EVIDENCE = Evidence(tee="tpm", primary=VECTOR["primary"], initdata=DOCUMENT)


def test_a_recorded_boot_verifies_and_shows_what_was_predicted() -> None:
    claims = verify(EVIDENCE, ANCHORS, REQUEST, AT)
    assert {name: claims.measurement[name] for name in VECTOR["measured"]} == VECTOR["measured"]
    assert claims.values["log"]["secure_boot"] is False
    assert len(claims.values["log"]["initrd"]) == len(claims.values["log"]["load_options"]) == 1
    assert claims.measurement["pcr10"] != "00" * 32  # the kernel's own, not judged


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        (Request(report_data=b"w" * 48, initdata_digest=REQUEST.initdata_digest), "tpm.quote.nonce"),
        (Request(report_data=REQUEST.report_data, initdata_digest=bytes(32)), "tpm.initdata"),
    ],
)
def test_replayed_or_swapped_it_is_refused(request_: Request, rule: str) -> None:
    with pytest.raises(Refused, match=rule.replace(".", r"\.")):
        verify(EVIDENCE, ANCHORS, request_, AT)
