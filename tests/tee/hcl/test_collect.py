"""Collection against a real software TPM that is prepared as Azure's: the same indexes and key, a paravisor behind it.

The stand-in does what the paravisor does: when the guest's words are written, it makes its report anew. A software TPM
holds indexes of 2048 bytes, Azure's 2600, so the report here is without the padding and without the EK.
"""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest

from casemate.drivers import swtpm
from casemate.errors import Malformed, Unavailable, Unusable
from casemate.schema.request import Request
from casemate.tee import room
from casemate.tee.hcl import collect as hcl
from casemate.tee.hcl import report as wire
from casemate.tee.tpm import report as tpm
from casemate.tee.tpm.wire import Tpm
from casemate.testing.azure import FakeCvm, pem, trust_domain
from casemate.testing.snp import FakeChip
from casemate.wire.encoding import b64u, unb64u

ASKED = Request(report_data=b"r" * 48)
AK_TEMPLATE = (
    b"\x00\x01\x00\x0b" + tpm.AK_ATTRIBUTES.to_bytes(4, "big") + b"\x00\x00"
    + b"\x00\x10\x00\x14\x00\x0b\x08\x00\x00\x00\x00\x00\x00\x00"
)  # fmt: skip


class Paravisor:
    """A way to the TPM with the paravisor behind it. `late`: how many reads show the old report first; None: always."""

    def __init__(self, transport, late: int | None = 0) -> None:
        self.transport, self.late, self.machine = transport, late, None
        self.words = b""

    def transmit(self, command: bytes) -> bytes:
        response = self.transport.transmit(command)
        code, index = command[6:10], command[14:18]
        if self.machine and code == b"\x00\x00\x01\x37" and index == hcl.USER_DATA.to_bytes(4, "big"):
            self.words = Tpm(self.transport).nv_read(hcl.USER_DATA)
            if self.late == 0:
                self.renew()
        if self.words and code == b"\x00\x00\x01\x4e" and self.late:
            self.late -= 1
            if self.late == 0:
                self.renew()
        return response

    def renew(self) -> None:
        Tpm(self.transport).nv_write(hcl.HCL_REPORT, self.machine.hcl_report(self.words))


@contextmanager
def azure(folder, kind: str, late: int | None = 0):
    """(machine, transport) of a prepared TPM."""
    folder.mkdir(exist_ok=True)
    with swtpm.connect(folder) as connection:
        device = Tpm(connection)
        device.startup()
        handle, public = device.create_primary(tpm.RH_OWNER, AK_TEMPLATE)
        device.evict(handle, hcl.AK)
        device.flush(handle)
        device.extend(8, b"\7" * 32)
        modulus = int.from_bytes(tpm.parse_public(public).unique[0], "big")
        machine = FakeCvm(FakeChip() if kind == "snp" else trust_domain(), modulus=modulus)
        report = machine.hcl_report(b"")
        device.nv_define(hcl.HCL_REPORT, len(report))
        device.nv_write(hcl.HCL_REPORT, report)
        paravisor = Paravisor(connection, late)
        paravisor.machine = machine
        yield machine, paravisor


def metadata(machine, asked=None):
    def fetch(path, body):
        if asked is not None:
            asked.append((path, body))
        if path.endswith("/acc/tdquote"):
            quote = machine.quote_of(unb64u(json.loads(body)["report"]))
            return json.dumps({"quote": b64u(quote)}).encode()
        chain = machine.hardware.chain
        answer = {"vcekCert": pem(chain[0][1]), "certificateChain": "".join(pem(der) for _, der in chain[1:])}
        return json.dumps(answer | {"tcbm": "0", "cacheControl": "1"}).encode()

    return fetch


def collector(machine):
    from importlib import import_module

    return import_module(f"casemate.tee.{machine.tee.replace('-', '_')}.collect")


@pytest.mark.parametrize("kind", ["snp", "tdx"])
@pytest.mark.parametrize("late", [0, 3])
def test_evidence_of_a_real_tpm_is_accepted(tmp_path, kind, late, monkeypatch):
    monkeypatch.setattr(hcl, "_POLL_SECONDS", 0.001)
    with azure(tmp_path / "tpm", kind, late) as (machine, paravisor):
        asked = []
        evidence = collector(machine).collect(ASKED, transport=paravisor, fetch=metadata(machine, asked))
        assert evidence.primary["version"] == 2
        assert [path for path, _ in asked] == ["/metadata/THIM/amd/certification" if kind == "snp" else "/acc/tdquote"]
        claims = room(machine.tee).verify(evidence, machine.endorsements, ASKED, machine.now)
        assert claims.fresh
        assert claims.values["hcl"]["user_data"] == ASKED.report_data.ljust(64, b"\0").hex()
        digest = Request(report_data=ASKED.report_data, initdata_digest=b"\7" * 32)
        assert room(machine.tee).verify(evidence, machine.endorsements, digest, machine.now).init_data
        # A second question over the same index, and one without a question.
        other = Request(report_data=b"s" * 64)
        evidence = collector(machine).collect(other, transport=paravisor, fetch=metadata(machine))
        if late == 0:
            assert room(machine.tee).verify(evidence, machine.endorsements, other, machine.now).fresh
        old = collector(machine).collect(Request(), transport=paravisor, fetch=metadata(machine))
        assert old.primary["version"] == 1
        assert not room(machine.tee).verify(old, machine.endorsements, Request(), machine.now).fresh


def test_an_index_of_another_size_is_made_anew(tmp_path):
    with azure(tmp_path / "tpm", "snp") as (machine, paravisor):
        Tpm(paravisor.transport).nv_define(hcl.USER_DATA, 48)
        evidence = collector(machine).collect(ASKED, transport=paravisor, fetch=metadata(machine))
        assert room(machine.tee).verify(evidence, machine.endorsements, ASKED, machine.now).fresh


def test_an_old_report_is_never_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(hcl, "_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(hcl, "_POLL_SECONDS", 0.01)
    with azure(tmp_path / "tpm", "snp", None) as (machine, paravisor), pytest.raises(Unavailable, match="anew"):
        collector(machine).collect(ASKED, transport=paravisor, fetch=metadata(machine))


@pytest.mark.parametrize("kind", ["snp", "tdx"])
def test_presence_is_what_the_report_says(tmp_path, kind):
    with azure(tmp_path / "tpm", kind) as (machine, paravisor):
        for other in ("snp", "tdx"):
            module = collector(FakeCvm(FakeChip() if other == "snp" else trust_domain()))
            assert module.present(transport=paravisor) == (other == kind)
        another = "tdx" if kind == "snp" else "snp"
        module = collector(FakeCvm(FakeChip() if another == "snp" else trust_domain()))
        with pytest.raises(Malformed):
            module.collect(ASKED, transport=paravisor, fetch=metadata(machine))


def test_an_ordinary_tpm_is_not_azures_and_keeps_its_indexes(tmp_path):
    (tmp_path / "tpm").mkdir()
    with swtpm.connect(tmp_path / "tpm") as connection:
        device = Tpm(connection)
        device.startup()
        for kind in (wire.SNP, wire.TDX):
            assert not hcl.present(kind, connection)
            with pytest.raises(Unusable, match="paravisor"):
                hcl.collect(kind, b"r" * 48, connection)
        assert device.handles(0x01400000) == []


def test_the_owner_reads_what_the_index_itself_does_not_give(tmp_path):
    """Azure's index may be readable by the owner alone."""
    (tmp_path / "tpm").mkdir()
    with swtpm.connect(tmp_path / "tpm") as connection:
        device = Tpm(connection)
        device.startup()
        owner_only = 0x00000002 | 0x00020000 | 0x02000000
        public = (
            hcl.HCL_REPORT.to_bytes(4, "big") + b"\x00\x0b" + owner_only.to_bytes(4, "big") + b"\x00\x00" + b"\x00\x04"
        )
        device._authorised(0x12A, (tpm.RH_OWNER,), tpm.sized(b"") + tpm.sized(public))
        device.nv_write(hcl.HCL_REPORT, b"HCLA")
        assert device.nv_read(hcl.HCL_REPORT, owner=True) == b"HCLA"
        with pytest.raises(Unavailable):
            device.nv_read(hcl.HCL_REPORT)


def test_no_device_is_no_azure(monkeypatch, tmp_path):
    monkeypatch.setattr(hcl, "DEVICE", str(tmp_path / "none"))
    assert not hcl.present(wire.SNP)


@pytest.mark.parametrize("size", [0, 65])
def test_report_data_that_cannot_be_bound(size):
    with pytest.raises(Unusable):
        hcl.collect(wire.SNP, b"r" * size)


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b'{"vcekCert": 1, "quote": 1}', b'{"vcekCert": "x", "quote": "!"}']
)
@pytest.mark.parametrize("kind", ["snp", "tdx"])
def test_a_strange_metadata_service_is_malformed(tmp_path, kind, answer):
    from casemate.tee.az_snp_vtpm import collect as snp  # noqa: F401  # the submodule, behind the verb of its name
    from casemate.tee.az_tdx_vtpm import collect as tdx  # noqa: F401

    module = collector(FakeCvm() if kind == "snp" else FakeCvm(trust_domain()))
    with pytest.raises(Malformed):
        module._vcek(answer) if kind == "snp" else module._td_quote(answer)


def test_the_metadata_service_is_asked_over_http(monkeypatch):
    """Against a server of our own on the loopback: paths, headers, and its errors."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    seen = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append((self.command, self.path, self.headers.get("Metadata"), body))
            self.send_response(200 if self.path == "/good" else 410)
            self.end_headers()
            self.wfile.write(b"answer")

        do_GET = do_POST = answer

        def log_message(self, *_args) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setattr(hcl, "METADATA", f"127.0.0.1:{server.server_port}")
        assert hcl.metadata("/good") == b"answer"
        assert hcl.metadata("/good", b"{}") == b"answer"
        with pytest.raises(Unavailable, match="410"):
            hcl.metadata("/gone")
    finally:
        server.shutdown()
        server.server_close()
    assert seen[:2] == [("GET", "/good", "true", b""), ("POST", "/good", "true", b"{}")]
    with pytest.raises(Unavailable):
        hcl.metadata("/good")
