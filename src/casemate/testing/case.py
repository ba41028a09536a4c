"""A fake vendor's evidence as files, for trying out `casemate verify` and for tests of what calls it.

python -m casemate.testing.case snp CASE            # evidence in CASE/, its root in CASE.root.pem
python -m casemate.testing.case tdx CASE debug      # broken in a way that the vendor's BROKEN names
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from casemate.errors import Unusable
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.testing import pki
from casemate.wire.encoding import b64

REPORT_DATA = b"nonce-of-32-bytes-for-an-example"
INITDATA = bytes(32)


def write(folder: Path, evidence: Evidence, endorsements: Endorsements) -> Path:
    """Write evidence and endorsements into `folder`; returns the file of the root, which lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    paper: dict[str, Any] = {"tee": evidence.tee, "primary": evidence.primary, "additional": evidence.additional}
    if evidence.initdata is not None:
        paper["initdata"] = b64(evidence.initdata)
    (folder / "evidence.json").write_text(json.dumps(paper))
    if endorsements.certificates:
        (folder / "certificates.pem").write_bytes(pki.pem(*endorsements.certificates))
    members = {}
    for name, data in endorsements.collateral.items():
        if name.endswith(".crl"):
            (folder / name).write_bytes(data)
        else:
            members[name] = data.hex() if name.endswith(("_signature", "_crl")) else data.decode()
    if members:
        (folder / "collateral.json").write_text(json.dumps(members))
    root = folder.with_name(folder.name + ".root.pem")
    root.write_bytes(pki.pem(*(anchor.certificate for anchor in endorsements.anchors)))
    return root


def _snp(broken: str) -> Any:
    from casemate.testing.snp import FakeChip

    return FakeChip(broken=broken)


def _tdx(broken: str) -> Any:
    from casemate.testing.dcap import FakePlatform
    from casemate.testing.tdx import FakeTd

    return FakeTd(FakePlatform("tdx", broken=broken))


def _nitro(broken: str) -> Any:
    from casemate.testing.nitro import FakeEnclave

    return FakeEnclave(broken=broken)


_VENDORS: dict[str, Callable[[str], Any]] = {"snp": _snp, "tdx": _tdx, "nitro": _nitro}


def main(arguments: list[str]) -> int:
    """TEE FOLDER [FAULT]: the command above."""
    if len(arguments) not in (2, 3) or arguments[0] not in _VENDORS:
        sys.stderr.write(f"usage: python -m casemate.testing.case {'|'.join(_VENDORS)} FOLDER [FAULT]\n")
        return 2
    try:
        vendor = _VENDORS[arguments[0]](arguments[2] if len(arguments) == 3 else "")
        request = Request(report_data=REPORT_DATA, initdata_digest=None if arguments[0] == "nitro" else INITDATA)
        root = write(Path(arguments[1]), vendor.collect(request), vendor.endorsements)
    except (ValueError, Unusable) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{arguments[1]}: evidence as of {vendor.now:%Y-%m-%dT%H:%M:%SZ}, its root in {root}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
