"""A fake vendor's evidence as files, for trying out `casemate verify` and for tests of what calls it.

python -m casemate.testing.case snp CASE            # evidence in CASE/, its root in CASE.root.pem
python -m casemate.testing.case tdx CASE debug      # broken in a way that the vendor's BROKEN names
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from casemate.errors import Unusable
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import files
from casemate.tee.dcap import collateral
from casemate.testing import pki
from casemate.wire.encoding import b64

REPORT_DATA = b"nonce-of-32-bytes-for-an-example"
INITDATA = bytes(32)


def write(folder: Path, evidence: Evidence, endorsements: Endorsements) -> Path:
    """Write evidence and endorsements into `folder`; returns the file of the root, which lies beside it.

    Secrets of the asker (IBM SE) are written beside the folder too, into `<folder>.key`; without roots nothing is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paper: dict[str, Any] = {"tee": evidence.tee, "primary": evidence.primary, "additional": evidence.additional}
    if evidence.initdata is not None:
        paper["initdata"] = b64(evidence.initdata)
    (folder / "evidence.json").write_text(json.dumps(paper))
    if endorsements.certificates:
        (folder / "certificates.pem").write_bytes(pki.pem(*endorsements.certificates))
    members = {}
    for name, data in endorsements.collateral.items():
        if name in collateral.NAMES:
            members[name] = data.hex() if name.endswith(("_signature", "_crl")) else data.decode()
        else:
            (folder / name.replace("/", "-")).write_bytes(data)
    if members:
        (folder / "collateral.json").write_text(json.dumps(members))
    secret = endorsements.secrets.get("se.request-key")
    if secret is not None:
        folder.with_name(folder.name + ".key").write_bytes(secret)
    root = folder.with_name(folder.name + ".root.pem")
    root.write_bytes(b"".join(_anchor(anchor.certificate) for anchor in endorsements.anchors))
    return root


def _anchor(data: bytes) -> bytes:
    """An anchor as a file: PEM of a certificate or key, a vendor's own form as it is."""
    kind = files.kind(data)
    if kind == "certificate":
        return pki.pem(data)
    if kind == "key":
        return load_der_public_key(data).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


class _Plain:
    """A vendor whose evidence anybody can write."""

    now = pki.NOW
    endorsements = Endorsements()

    def __init__(self, broken: str) -> None:
        if broken:
            raise ValueError("sample evidence has no faults: it proves nothing")

    def collect(self, request: Request) -> Evidence:
        """Evidence for `request`."""
        return Evidence(tee=_SAMPLE, primary={"svn": "1", "report_data": b64(request.report_data or b"")})


class _Enclave:
    """An SGX enclave on a platform of the fake Intel."""

    def __init__(self, broken: str) -> None:
        self.platform = _made("dcap", "FakePlatform", "sgx", broken=broken)
        self.now, self.endorsements = self.platform.now, self.platform.endorsements

    def collect(self, request: Request) -> Evidence:
        """Evidence for `request`."""
        fields = {"report_data": request.report_data or b"", "config_id": request.initdata_digest or b""}
        return Evidence(tee="sgx", primary={"quote": b64(self.platform.quote(self.platform.enclave(**fields)))})


def _made(module: str, name: str, *arguments: Any, **options: Any) -> Any:
    return getattr(import_module(f"casemate.testing.{module}"), name)(*arguments, **options)


def _td(broken: str) -> Any:
    return _made("tdx", "FakeTd", _made("dcap", "FakePlatform", "tdx", broken=broken))


def _azure_td(broken: str) -> Any:
    return _made("azure", "FakeCvm", _made("azure", "trust_domain"), broken=broken)


def _tpm(broken: str) -> Any:
    return _made("tpm", "FakeTpm", broken=broken)


_SAMPLE = "sample"
_VENDORS: dict[str, Callable[[str], Any]] = {
    "snp": lambda broken: _made("snp", "FakeChip", broken=broken),
    "tdx": _td,
    "nitro": lambda broken: _made("nitro", "FakeEnclave", broken=broken),
    "sgx": _Enclave,
    "tpm": _tpm,
    "cca": lambda broken: _made("cca", "FakeRealm", broken=broken),
    "csv": lambda broken: _made("csv", "FakeHygon", broken=broken),
    "se": lambda broken: _made("se", "FakeMachine", broken=broken),
    "az-snp-vtpm": lambda broken: _made("azure", "FakeCvm", broken=broken),
    "az-tdx-vtpm": _azure_td,
    "nvidia": lambda broken: _made("nvidia", "FakeGpu", broken=broken),
    _SAMPLE: _Plain,
}
_NO_INITDATA = ("nitro", "se", "nvidia", "tpm", "csv")  # nothing binds it there, or a document of its own kind


def vendor(tee: str, broken: str = "") -> Any:
    """The fake vendor of a TEE (`collect`, `endorsements`), broken in the named way."""
    return _VENDORS[tee](broken)


def request(tee: str) -> Request:
    """What the evidence of a case answers."""
    return Request(report_data=REPORT_DATA, initdata_digest=None if tee in _NO_INITDATA else INITDATA)


def main(arguments: list[str]) -> int:
    """TEE FOLDER [FAULT]: the command above."""
    if len(arguments) not in (2, 3) or arguments[0] not in _VENDORS:
        sys.stderr.write(f"usage: python -m casemate.testing.case {'|'.join(_VENDORS)} FOLDER [FAULT]\n")
        return 2
    try:
        made = vendor(arguments[0], arguments[2] if len(arguments) == 3 else "")
        root = write(Path(arguments[1]), made.collect(request(arguments[0])), made.endorsements)
    except (ValueError, Unusable) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    now = getattr(made, "now", None) or datetime.now(UTC)
    sys.stdout.write(f"{arguments[1]}: evidence as of {now:%Y-%m-%dT%H:%M:%SZ}, its root in {root}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
