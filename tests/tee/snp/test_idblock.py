import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from casemate.errors import Unusable
from casemate.tee.snp import idblock

ROOT = Path(os.environ.get("CASEMATE_EVIDENCE", Path(__file__).resolve().parents[4] / "shared" / "evidence"))
VECTORS = ROOT / "snp" / "vectors-id-block"


@pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no genuine evidence at {ROOT}: set CASEMATE_EVIDENCE")
def test_published_vectors():
    vectors = json.loads((VECTORS / "vectors.json").read_text())
    found = {
        name: idblock.key_digest(
            load_pem_public_key((VECTORS / f"{name}_key_pub.pem").read_bytes()).public_bytes(
                Encoding.X962, PublicFormat.UncompressedPoint
            )[1:]
        ).hex()
        for name in ("id", "author")
    }
    expected = {k: v for k, v in vectors.items() if isinstance(v, str)}
    assert found["id"] in expected.values()
    assert found["author"] in expected.values()
    digest = next(bytes.fromhex(v) for k, v in expected.items() if "launch" in k)
    assert idblock.block(digest).hex() in expected.values()


def test_sizes():
    assert len(idblock.block(bytes(48))) == idblock.SIZE
    for bad in (lambda: idblock.block(bytes(47)), lambda: idblock.key_digest(bytes(95))):
        with pytest.raises(Unusable):
            bad()
