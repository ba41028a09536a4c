"""A short run of every fuzz target, all in one process; `make fuzz` gives each its time. And what must be a target."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Parsers of what strangers send, and the target that covers each where the names differ.
PARSERS = {
    "boot/ccel": "ccel", "boot/eventlog": "eventlog", "boot/initdata": "initdata", "crypto/cose": "cose",
    "crypto/der": "der", "crypto/pem": "pem", "schema/manifest": "manifest", "tee/cca/report": "cca-token",
    "tee/csv/report": "csv-report", "tee/dcap/quote": "dcap-quote", "tee/hcl/report": "hcl-report",
    "tee/nitro/eif": "eif", "tee/nitro/report": "nitro-document", "tee/nvidia/report": "spdm-report",
    "tee/se/report": "se-evidence", "tee/snp/report": "snp-report", "tee/tpm/report": "tpms-attest",
    "wire/cbor": "cbor", "wire/jcs": "json", "policy/references/corim": "corim", "ledger/entry": "log-entry",
    "ledger/receipt": "receipt", "ledger/note": "checkpoint", "ledger/tiles": "entry-bundle",
    "ledger/history": "log-keys",
}  # fmt: skip


def run(*words, **options):
    command = [sys.executable, "-m", "fuzz", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def test_every_parser_has_a_target():
    pytest.importorskip("atheris", reason="atheris has no wheel for this machine")
    names = set(run("--list").stdout.split())
    assert set(PARSERS.values()) <= names
    assert {name for name in PARSERS if not (ROOT / "src/casemate" / f"{name}.py").exists()} == set()


def test_a_short_run_finds_nothing(tmp_path):
    pytest.importorskip("atheris", reason="atheris has no wheel for this machine")
    done = run("--together", "--seconds", "25", "--folder", str(tmp_path), timeout=110)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) runs", done.stdout)[1]) > 500


BAD = """
from fuzz.target import target
HELD = []

@target("bad-error", lambda: [b"fine"])
def bad_error():
    return lambda data: {}[data[0]] if data[:1] > b"x" else None

@target("bad-hang", lambda: [b"fine"])
def bad_hang():
    import time
    def one(data):
        begun = time.process_time()
        while data[:1] > b"x" and time.process_time() < begun + 4:
            pass
    return one

@target("bad-memory", lambda: [b"fine"])
def bad_memory():
    return lambda data: HELD.append(b"x" * (4 << 20)) if data[:1] > b"x" and len(HELD) < 200 else None

@target("bad-own", lambda: [b"fine"])
def bad_own():
    from casemate.errors import Malformed
    def one(data):
        if data[:1] > b"x":
            raise Malformed("its own error")
    return one
"""


def test_a_crash_a_hang_and_a_hoard_are_found_and_an_own_error_is_none(tmp_path):
    pytest.importorskip("atheris", reason="atheris has no wheel for this machine")
    more = tmp_path / "more"
    more.mkdir()
    (more / "bad.py").write_text(BAD)
    names = ["bad-error", "bad-hang", "bad-memory", "bad-own"]
    folder = tmp_path / "found"
    environment = {**os.environ, "CASEMATE_FUZZ_TARGETS": str(more)}
    done = run(*names, "--seconds", "16", "--folder", str(folder), env=environment)
    assert (done.returncode, "crashes in bad-error, bad-hang, bad-memory" in done.stdout) == (1, True), done.stdout
    kept = {name: {p.name.split("-")[0] for p in (folder / name).iterdir() if p.is_file()} for name in names}
    assert kept == {"bad-error": {"crash"}, "bad-hang": {"timeout"}, "bad-memory": {"oom"}, "bad-own": set()}


def test_a_name_that_is_none():
    done = run("no-such-target")
    assert (done.returncode, "no such target" in done.stderr) == (2, True)
