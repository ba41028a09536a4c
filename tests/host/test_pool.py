"""The pool, the platform CA and the whole loop on a real software TPM: prepare, start, collect, verify, refuse."""

from __future__ import annotations

import hashlib
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from casemate.drivers import swtpm
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.host import platform_ca, pool
from casemate.host.platform_ca import PlatformCa
from casemate.host.pool import Pool
from casemate.schema.claims import Claims
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.tpm import collect, report, verify
from casemate.tee.tpm.wire import EK_HANDLE, Tpm, TpmRefusal, make_credential
from casemate.testing import eventlog as writer
from casemate.wire.encoding import b64, unb64

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(shutil.which("swtpm_setup") is None, reason="swtpm is not installed: make setup"),
]
DIGEST = hashlib.sha256(b"document").digest()
REQUEST = Request(report_data=b"n" * 48, initdata_digest=DIGEST)
EVENTS = writer.direct_boot(b"firmware", b"kernel", "quiet", b"initrd")
LOG = writer.write(EVENTS)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A pool with prepared states. Tests copy from it."""
    made = Pool(tmp_path_factory.mktemp("platform"))
    made.prepare(2)
    return made


@pytest.fixture
def state(stock: Pool, tmp_path: Path) -> Path:
    """A copy of a prepared state, so that each test boots a fresh one without the price of making it."""
    return Path(shutil.copytree(next((stock.folder / "ready").iterdir()), tmp_path / "tpm"))


@pytest.fixture
def booted(state: Path) -> Iterator[swtpm.Connection]:
    """A TPM after a boot as `EVENTS` and DIGEST tell it."""
    with swtpm.connect(state) as connection:
        boot(Tpm(connection))
        yield connection


def boot(tpm: Tpm) -> None:
    tpm.startup()
    for event in EVENTS:
        tpm.extend(event.register, event.digest)
    tpm.extend(8, DIGEST)


def judge(stock: Pool, evidence: Evidence, *, days: int = 0, collateral: dict[str, bytes] | None = None) -> Claims:
    endorsements = Endorsements(anchors=(stock.ca.anchor,), collateral=collateral or {})
    return verify(evidence, endorsements, REQUEST, datetime.now(UTC) + timedelta(days=days))


def rules(stock: Pool, evidence: Evidence, **more: object) -> set[str]:
    with pytest.raises(Refused) as refused:
        judge(stock, evidence, **more)
    return {f.rule for f in refused.value.findings if not f.ok}


def test_the_whole_loop(stock: Pool, booted: swtpm.Connection) -> None:
    evidence = collect(REQUEST, transport=booted, event_log=LOG)
    claims = judge(stock, evidence)
    assert claims.vouched_by.startswith("development platform ")
    assert (claims.platform_class, claims.memory_encrypted, claims.fresh) == ("development", False, True)
    assert claims.measurement["pcr8"] == hashlib.sha256(bytes(32) + DIGEST).hexdigest()
    assert claims.measurement["pcr17"] == "ff" * 32
    assert claims.values["restart_count"] == 0


def test_what_a_verifier_concludes_about_the_ak_is_true_in_the_tpm(booted: swtpm.Connection) -> None:
    public, name = Tpm(booted).read_public(report.AK_HANDLE)
    assert report.parse_public(public).attributes == report.AK_ATTRIBUTES == 0x00050472
    assert report.name(public) == name
    evidence = collect(REQUEST, transport=booted, event_log=LOG)
    attest = report.parse_attest(unb64(evidence.primary["tpm_quote"]["message"]))
    assert attest.qualified_signer == report.qualified_name(report.RH_ENDORSEMENT, name)


def test_refusals_of_a_real_tpm(stock: Pool, booted: swtpm.Connection) -> None:
    other = collect(Request(report_data=b"x" * 48), transport=booted, event_log=LOG)
    assert rules(stock, other) == {"tpm.quote.nonce"}
    swapped = collect(REQUEST, transport=booted, event_log=writer.write(EVENTS[:-1]))
    assert rules(stock, swapped) == {"tpm.log.replay"}
    good = collect(REQUEST, transport=booted, event_log=LOG)
    pcrs = ["ab" * 32, *good.primary["tpm_quote"]["pcrs"][1:]]
    altered = {**good.primary, "tpm_quote": {**good.primary["tpm_quote"], "pcrs": pcrs}}
    assert rules(stock, Evidence(tee="tpm", primary=altered)) == {"tpm.quote.pcrs", "tpm.log.replay"}
    assert rules(stock, good, days=400) == {"tpm.ak.validity"}
    Tpm(booted).extend(4, bytes(32))
    assert rules(stock, collect(REQUEST, transport=booted, event_log=LOG)) == {"tpm.log.replay"}
    Tpm(booted).extend(8, bytes(32))
    assert rules(stock, collect(REQUEST, transport=booted, event_log=LOG)) == {"tpm.log.replay", "tpm.initdata"}


def test_a_key_that_the_ca_did_not_certify(stock: Pool, booted: swtpm.Connection) -> None:
    tpm = Tpm(booted)
    unrestricted = report.ak_public(b"", b"").replace((0x00050472).to_bytes(4, "big"), (0x00040472).to_bytes(4, "big"))
    handle, _ = tpm.create_primary(report.RH_ENDORSEMENT, unrestricted)
    message, signature = tpm.quote(handle, REQUEST.report_data[:32])
    good = collect(REQUEST, transport=booted, event_log=LOG).primary
    quote = {**good["tpm_quote"], "message": b64(message), "signature": b64(signature)}
    assert rules(stock, Evidence(tee="tpm", primary={**good, "tpm_quote": quote})) == {"tpm.quote.signature"}


def test_a_used_state_is_not_safe_any_more(stock: Pool, state: Path) -> None:
    with swtpm.connect(state) as connection:
        Tpm(connection).startup()  # and no orderly shutdown
    with swtpm.connect(state) as connection:
        boot(Tpm(connection))
        assert rules(stock, collect(REQUEST, transport=connection, event_log=LOG)) == {"tpm.quote.clock"}


def test_revocation(stock: Pool, booted: swtpm.Connection) -> None:
    evidence = collect(REQUEST, transport=booted, event_log=LOG)
    before = {"platform.crl": stock.ca.crl()}
    assert judge(stock, evidence, collateral=before).values["ak_revocation"] == "checked"
    assert judge(stock, evidence).values["ak_revocation"] == "not checked"
    assert rules(stock, evidence, days=30, collateral=before) == {"tpm.ak.revoked"}
    stock.ca.revoke(unb64(evidence.primary["ak_chain"][0]))
    try:
        assert rules(stock, evidence, collateral={"platform.crl": stock.ca.crl()}) == {"tpm.ak.revoked"}
    finally:
        (stock.ca.folder / "revoked.json").unlink()
    foreign = PlatformCa.open(stock.folder.parent / "foreign-ca").crl()
    assert judge(stock, evidence, collateral={"foreign.crl": foreign}).values["ak_revocation"] == "not checked"


def test_another_platform_does_not_vouch(stock: Pool, booted: swtpm.Connection, tmp_path: Path) -> None:
    evidence = collect(REQUEST, transport=booted, event_log=LOG)
    other = PlatformCa.open(tmp_path / "other")
    with pytest.raises(Refused, match=r"tpm\.ak\.chain"):
        verify(evidence, Endorsements(anchors=(other.anchor,)), REQUEST, datetime.now(UTC))


def test_credentials_open_only_for_the_named_key(booted: swtpm.Connection) -> None:
    tpm = Tpm(booted)
    ek = report.parse_public(tpm.read_public(EK_HANDLE)[0])
    name = tpm.read_public(report.AK_HANDLE)[1]
    blob, seed = make_credential(ek.unique[0], ek.exponent, name, b"s" * 32)
    assert tpm.activate_credential(report.AK_HANDLE, blob=blob, encrypted=seed) == b"s" * 32
    blob, seed = make_credential(ek.unique[0], ek.exponent, b"\x00\x0b" + bytes(32), b"s" * 32)
    with pytest.raises(TpmRefusal):
        tpm.activate_credential(report.AK_HANDLE, blob=blob, encrypted=seed)
    assert tpm.handles(0x02000000) == tpm.handles(0x03000000) == []  # no session is left behind


def test_the_ca_certifies_no_tpm_of_another_maker(booted: swtpm.Connection, tmp_path: Path) -> None:
    stranger = PlatformCa.open(tmp_path / "stranger")
    with pytest.raises(Refused, match=r"tpm\.ek\.chain"):
        stranger.certify(Tpm(booted))


def test_the_ca_certifies_no_other_kind_of_key(stock: Pool, booted: swtpm.Connection) -> None:
    class Lying:
        """Answers CreatePrimary with a key that may sign anything."""

        def transmit(self, command: bytes) -> bytes:
            return booted.transmit(command.replace((0x00050472).to_bytes(4, "big"), (0x00040472).to_bytes(4, "big")))

    with pytest.raises(Refused, match=r"tpm\.ak\.attributes") as refused:
        stock.ca.certify(Tpm(Lying()))
    assert "0x00040472" in refused.value.findings[0].found
    assert Tpm(booted).handles(0x80000000) == []  # the transient key is gone


def test_nv_memory(booted: swtpm.Connection) -> None:
    tpm, data = Tpm(booted), bytes(range(251)) * 6
    tpm.nv_define(0x01C10003, len(data))
    tpm.nv_write(0x01C10003, data)
    assert tpm.nv_read(0x01C10003) == data
    tpm.nv_undefine(0x01C10003)
    with pytest.raises(TpmRefusal):
        tpm.nv_read(0x01C10003)


def test_each_state_serves_once(stock: Pool, tmp_path: Path) -> None:
    own = Pool(tmp_path / "platform")
    for waiting in (stock.folder / "ready").iterdir():
        shutil.copytree(waiting, own.folder / "ready" / waiting.name)
    taken: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: taken.append(own.take(tmp_path / f"vm{n}").record.id)) for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 2
    assert own.ready() == 0


def test_an_empty_pool_makes_one_and_private_folders(tmp_path: Path) -> None:
    own = Pool(tmp_path / "platform")
    taken = own.take(tmp_path / "tpm")
    assert taken.folder == tmp_path / "tpm"
    assert taken.record.ak_name.startswith("000b")
    for path in (own.folder, own.ca.folder, own.ca.ek_authority, taken.folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for key in (own.ca.folder / "key.pem", own.ca.ek_authority / "signkey.pem", taken.folder / "tpm2-00.permall"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(Unusable, match="exists already"):
        own.take(tmp_path / "tpm")
    with pytest.raises(Unusable, match="does not exist"):
        own.take(tmp_path / "nowhere" / "tpm")


def test_old_broken_and_half_made_states_are_never_given_out(stock: Pool, tmp_path: Path) -> None:
    own = Pool(tmp_path / "platform")
    source = next((stock.folder / "ready").iterdir())
    for name in ("a-old", "b-broken", "c-missing", "d-future", "e-good"):
        shutil.copytree(source, own.folder / "ready" / name)
    (own.folder / "making" / "crashed").mkdir()
    record = msgspec.json.decode((source / pool.RECORD).read_bytes(), type=pool.Record)

    def write(name: str, **change: object) -> None:
        changed = msgspec.structs.replace(record, **change)
        (own.folder / "ready" / name / pool.RECORD).write_bytes(msgspec.json.encode(changed))

    write("a-old", made=record.made - timedelta(days=31))
    write("d-future", made=record.made + timedelta(days=2))
    (own.folder / "ready" / "b-broken" / pool.RECORD).write_bytes(b"{}")
    (own.folder / "ready" / "c-missing" / pool.RECORD).unlink()
    write("e-good", id="good")
    assert own.take(tmp_path / "tpm").record.id == "good"
    assert own.prepare(0) == 0
    assert list((own.folder / "making").iterdir()) == []
    assert {p.name for p in (own.folder / "ready").iterdir()} <= {"e-good"}


def test_the_background_refill(tmp_path: Path) -> None:
    own = Pool(tmp_path / "platform")
    own.refill(1)
    deadline = time.monotonic() + 60
    while own.ready() < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert own.ready() == 1, (own.folder / "refill.log").read_text()
    with platform_ca.locked(own.folder / ".maker"):
        assert own.prepare(5, wait=False) == 0


def test_a_ca_is_made_once_and_its_files_must_fit(tmp_path: Path) -> None:
    opened = [PlatformCa.open(tmp_path / "ca").der for _ in range(2)]
    assert opened[0] == opened[1]
    parsed = x509.load_pem_x509_certificate((tmp_path / "ca" / "certificate.pem").read_bytes())
    assert parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    other = PlatformCa.open(tmp_path / "other")
    shutil.copy(other.folder / "key.pem", tmp_path / "ca" / "key.pem")
    with pytest.raises(Unusable, match="do not belong together"):
        PlatformCa.open(tmp_path / "ca")
    (tmp_path / "ca" / "key.pem").write_text("nonsense")
    with pytest.raises(Unusable, match="cannot be read"):
        PlatformCa.open(tmp_path / "ca")
    (other.folder / "revoked.json").write_text("[1]")
    with pytest.raises(Unusable, match="serial numbers"):
        other.crl()
    with pytest.raises(Malformed):
        other.revoke(b"nonsense")


def test_qemus_end_of_swtpm(state: Path, tmp_path: Path) -> None:
    """What QEMU does with the control socket, and that swtpm ends when QEMU does, however that ends."""
    control = tmp_path / "ctl"
    process = swtpm.serve(state, control)
    assert stat.S_IMODE(control.stat().st_mode) == 0o600
    ours, theirs = socket.socketpair()
    with socket.socket(socket.AF_UNIX) as qemu, ours:
        qemu.connect(str(control))
        socket.send_fds(qemu, [(0x10).to_bytes(4, "big")], [theirs.fileno()])  # CMD_SET_DATAFD
        theirs.close()
        assert qemu.recv(4) == bytes(4)
        qemu.sendall((2).to_bytes(4, "big") + bytes(4))  # CMD_INIT
        assert qemu.recv(4) == bytes(4)
        tpm = Tpm(swtpm.Connection(ours))
        tpm.startup()
        assert tpm.nv_size(report.AK_CHAIN_INDEX) > 200
    assert process.wait(10) is not None


def test_swtpm_problems_have_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unusable, match="107 bytes"):
        swtpm.serve(tmp_path, tmp_path / ("x" * 120))
    for state, control in ((tmp_path / "a,b", tmp_path / "ctl"), (tmp_path, tmp_path / "a,b")):
        with pytest.raises(Unusable, match=r"comma|no TPM state"):
            swtpm.serve(state, control)
    with pytest.raises(Unusable, match="no TPM state"):
        swtpm.serve(tmp_path / "missing", tmp_path / "ctl")
    (tmp_path / swtpm.STATE_FILE).touch()
    with pytest.raises(Unavailable, match="ended at once"):
        swtpm.serve(tmp_path, tmp_path / "no-folder" / "ctl", log=tmp_path / "log")
    (tmp_path / "authority").mkdir()
    with pytest.raises(Unavailable, match="swtpm_setup failed"):
        swtpm.manufacture(tmp_path / "missing", authority=tmp_path / "authority", subject="")
    monkeypatch.setattr(swtpm.shutil, "which", lambda *_args, **_more: None)
    with pytest.raises(Unusable, match="swtpm is missing"):
        swtpm.program("swtpm")


@pytest.mark.parametrize(
    "sent", [b"", b"\x80\x01\x00", b"\x80\x01\x00\x00\x00\x0c" + bytes(4), b"\x80\x01" + b"\xff" * 8]
)
def test_a_tpm_that_breaks_off_is_unavailable(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        with theirs, pytest.raises(Unavailable):
            swtpm.Connection(ours).transmit(b"command")
