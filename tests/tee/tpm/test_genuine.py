"""Published evidence of real platforms: Google's vTPM, a vTPM without certificates, Azure's vTPM quotes."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from casemate.errors import Refused
from casemate.schema.endorsements import PRODUCTION, Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.tpm import report, verify
from casemate.testing import published
from casemate.wire.encoding import b64

FOLDER = published.folder("tpm")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning"),  # Google's issuer names are long
    pytest.mark.skipif(FOLDER is None, reason="the published evidence set is not on this machine"),
]
AT = datetime(2022, 6, 1, tzinfo=UTC)
GOOGLE = ["gcp-cos85-no-nonce", "gcp-cos85-nonce9009"]


def google(name: str) -> tuple[dict[str, Any], Endorsements]:
    folder = FOLDER / name
    public = report.parse_public((folder / "ak_pub.tpmt").read_bytes())
    leaf = (folder / "ak_cert.der").read_bytes()
    pcrs = json.loads((folder / "quote-sha256.pcrs.json").read_text())
    key = RSAPublicNumbers(public.exponent, int.from_bytes(public.unique[0], "big")).public_key()
    primary = {
        "tpm_quote": {
            "signature": b64((folder / "quote-sha256.sig").read_bytes()),
            "message": b64((folder / "quote-sha256.attest").read_bytes()),
            "pcrs": [pcrs[str(i)] for i in range(24)],
        },
        "ak_public": b64(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        "ak_chain": [b64(leaf), b64((folder / "ca_intermediate.der").read_bytes())],
        "event_log": b64((folder / "eventlog.bin").read_bytes()),
    }
    root = Anchor(certificate=(folder / "ca_root.cer").read_bytes(), platform_class=PRODUCTION, name="Google vTPM")
    return primary, Endorsements(anchors=(root,))


def failures(primary: dict[str, Any], endorsements: Endorsements, request: Request) -> set[str]:
    with pytest.raises(Refused) as refused:
        verify(Evidence(tee="tpm", primary=primary), endorsements, request, AT)
    return {f.rule for f in refused.value.findings if not f.ok}


@pytest.mark.parametrize("name", GOOGLE)
def test_google_quotes_and_chains_hold(name: str) -> None:
    primary, endorsements = google(name)
    claims = verify(Evidence(tee="tpm", primary=primary), endorsements, Request(), AT)
    assert (claims.fresh, claims.platform_class, claims.memory_encrypted) == (False, PRODUCTION, False)
    assert claims.values["log"]["secure_boot"] is not None


@pytest.mark.parametrize("name", GOOGLE)
def test_google_quotes_are_not_fresh_for_us(name: str) -> None:
    primary, endorsements = google(name)
    assert failures(primary, endorsements, Request(report_data=b"n" * 48)) == {"tpm.quote.nonce"}


@pytest.mark.parametrize("bank", ["sha1", "sha384"])
def test_quotes_of_another_bank_replay_too_and_sha1_is_a_caution(bank: str) -> None:
    primary, endorsements = google(GOOGLE[0])
    folder = FOLDER / GOOGLE[0]
    shown = json.loads((folder / f"quote-{bank}.pcrs.json").read_text())
    primary["tpm_quote"] |= {
        "signature": b64((folder / f"quote-{bank}.sig").read_bytes()),
        "message": b64((folder / f"quote-{bank}.attest").read_bytes()),
    }
    weak = {"tpm.quote.bank"} if bank == "sha1" else set()
    rules = failures(primary, endorsements, Request())
    assert rules == weak | {"tpm.quote.count", "tpm.log.replay", "tpm.initdata"}
    primary["tpm_quote"]["pcrs"] = [shown[str(i)] for i in range(24)]
    claims = verify(Evidence(tee="tpm", primary=primary), endorsements, Request(), AT)
    assert (claims.values["bank"], claims.measurement["pcr4"]) == (bank, shown["4"])
    assert [c.rule for c in claims.cautions] == sorted(weak)
    assert failures(primary, endorsements, Request(initdata_digest=bytes(32))) == weak | {"tpm.initdata"}


def test_a_given_key_needs_no_chain_and_makes_development() -> None:
    primary, _ = google(GOOGLE[0])
    key = base64.b64decode(primary["ak_public"])
    bare = {**primary, "ak_chain": []}
    endorsements = Endorsements(collateral={"tpm.key.0": b"another", "tpm.key.1": key})
    claims = verify(Evidence(tee="tpm", primary=bare), endorsements, Request(), AT)
    assert (claims.platform_class, claims.valid_until) == ("development", None)
    assert "that was given" in claims.vouched_by
    other = Endorsements(collateral={"tpm.key.0": b"another"})
    assert failures(bare, other, Request()) == {"tpm.ak.chain", "tpm.ak.key"}


def test_google_needs_its_intermediate_and_its_root() -> None:
    primary, endorsements = google(GOOGLE[0])
    assert failures({**primary, "ak_chain": primary["ak_chain"][:1]}, endorsements, Request()) == {"tpm.ak.chain"}
    assert failures(primary, Endorsements(), Request()) == {"tpm.ak.chain"}


def test_the_name_of_a_genuine_public_area() -> None:
    index = json.loads(published.folder("index.json").read_text())
    facts = next(s["facts"] for s in index["samples"] if s["id"] == "tpm/gcp-cos85-nonce9009")
    assert report.name((FOLDER / GOOGLE[1] / "ak_pub.tpmt").read_bytes()).hex() == facts["ak_name"]
    attest = report.parse_attest((FOLDER / GOOGLE[1] / "quote-sha256.attest").read_bytes())
    assert attest.extra_data.hex() == facts["nonce"]


def test_a_bare_key_is_refused_for_want_of_a_chain() -> None:
    primary = json.loads((FOLDER / "vtpm-bare-ak" / "tpm_evidence.json").read_text())
    rules = failures(primary, Endorsements(), Request(report_data=b"n" * 48))
    assert rules == {"tpm.ak.chain", "tpm.ak.key", "tpm.quote.nonce", "tpm.log.present"}


def test_azure_quotes_have_the_same_layout() -> None:
    found = sorted(published.folder("azure-vtpm").glob("*/evidence.json"))
    assert found
    for path in found:
        document = json.loads(path.read_text())
        document = document.get("evidence", document)
        quote = document.get("tpm_quote") or document["quote"]
        attest = report.parse_attest(_bytes(quote["message"]))
        assert attest.selections[0][0] == "sha256"
        shown = [_bytes(quote["pcrs"][i]) for i in attest.selections[0][1]]
        assert attest.pcr_digest == hashlib.sha256(b"".join(shown)).digest()


def _bytes(value: Any) -> bytes:
    return bytes(value) if isinstance(value, list) else bytes.fromhex(value)
