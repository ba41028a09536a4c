"""The agent's smaller parts: packet filter text, seccomp profile, output ring, machine facts, orphans."""

import json
import os
import subprocess
import time

import pytest

from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.guest import checks, firewall, seccomp, supervise
from casemate.guest.output import Ring
from casemate.schema import manifest as manifests
from casemate.testing.broker import document

PIN = "sha256:" + "0" * 64


def manifest(ports=(), **parts):
    made = document("sha256:" + "1" * 64, PIN, **parts)
    made["containers"][0]["ports"] = list(ports)
    return manifests.from_builtins(made)


def test_the_filter_drops_what_is_not_listed():
    rules = firewall.ruleset(manifest([{"container": 8443}, {"container": 53, "protocol": "udp"}, {"container": 80}]))
    assert "policy drop" in rules
    assert "tcp dport { 80, 8443 } accept" in rules
    assert "udp dport { 53 } accept" in rules
    assert rules.count("accept") == 4
    assert "dport" not in firewall.ruleset(manifest())


def test_a_filter_that_can_t_be_loaded_is_a_failure(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unavailable):
        firewall.apply("")


def allowed(profile):
    return {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]} - {"clone3"}


def test_the_profile_is_an_allowlist_without_what_breaks_out():
    names = allowed(seccomp.profile(()))
    assert {"read", "write", "openat", "execve", "futex", "rseq", "epoll_wait", "accept4", "getrandom"} <= names
    closed = {"mount", "umount2", "pivot_root", "setns", "unshare", "bpf", "ptrace", "keyctl", "add_key", "request_key"}
    closed |= {"init_module", "kexec_load", "kexec_file_load", "reboot", "open_by_handle_at", "perf_event_open"}
    closed |= {"userfaultfd", "io_uring_setup", "process_vm_writev", "swapon", "clone", "personality", "iopl"}
    assert not names & closed


def test_capabilities_open_their_calls_and_no_others():
    assert "chroot" in allowed(seccomp.profile(["CAP_SYS_CHROOT"]))
    assert "mount" in allowed(seccomp.profile(["CAP_SYS_ADMIN"]))
    assert "mount" not in allowed(seccomp.profile(["CAP_SYS_CHROOT", "CAP_NET_ADMIN"]))


def test_names_stand_once_and_sorted():
    data = json.loads(seccomp.PROFILE.read_text())
    assert data["allow"] == sorted(set(data["allow"]))
    from casemate.schema.manifest_rules import CAPABILITIES

    assert set(data["with_capability"]) <= CAPABILITIES


def test_clone_makes_no_namespace():
    rules = [rule for rule in seccomp.profile(())["syscalls"] if rule["names"] == ["clone"]]
    assert rules[0]["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]


def test_the_ring_keeps_the_newest():
    ring = Ring(100)
    for number in range(50):
        ring.add("stdout" if number % 2 else "stderr", b"line %d\n" % number)
    found = dict(ring.tail(2))
    assert found["stdout"] == b"line 47\nline 49\n"
    assert found["stderr"] == b"line 46\nline 48\n"
    assert ring.lost > 0
    ring.add("stdout", b"x" * 1000)
    assert sum(len(data) for _, data in ring.tail(1000)) <= 100
    assert ring.tail(0) == []


def test_minimum():
    small = manifest(minimum={"cpus": 2, "memory_mib": 512})
    checks.demand_minimum(small, cpus=2, memory_mib=500)
    with pytest.raises(Refused) as refusal:
        checks.demand_minimum(small, cpus=1, memory_mib=256)
    assert [finding.rule for finding in refusal.value.findings] == ["minimum.cpus", "minimum.memory"]


def test_memory_is_counted_from_the_firmwares_map(tmp_path):
    lines = "00001000-0009ffff : System RAM\n  00002000-00002fff : System RAM\n00100000-1fffffff : System RAM\n"
    (tmp_path / "iomem").write_text(lines)
    assert checks.memory(tmp_path / "iomem") == 511
    (tmp_path / "iomem").write_text("00000000-00000000 : System RAM\n")
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\nMemTotal:     204800 kB\n")
    assert checks.memory(tmp_path / "iomem", tmp_path / "meminfo") == 200


def test_initdata_that_is_missing(tmp_path):
    with pytest.raises(Unusable):
        checks.read_initdata(tmp_path / "none")


def test_initdata_too_long_is_not_read_whole(tmp_path):
    from casemate.boot import initdata

    (tmp_path / "long").write_bytes(b" " * (initdata.MAX_DOCUMENT + 4096))
    with pytest.raises(Malformed):
        initdata.parse(checks.read_initdata(tmp_path / "long"))


def test_the_console_gets_one_printable_line(capsys):
    checks.console("a\nb\x1b[2J" + "x" * 1000)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "\x1b" not in out
    assert len(out) < 400


def test_orphans_are_reaped_on_the_second_look():
    child = subprocess.Popen(["true"])
    other = subprocess.Popen(["true"])
    try:
        deadline = time.monotonic() + 10
        seen = set()
        while not {child.pid, other.pid} <= seen and time.monotonic() < deadline:
            seen = supervise.reap_orphans(set(), set())
        assert child.pid in seen
        assert supervise.reap_orphans({other.pid}, seen) == set()
        with pytest.raises(ChildProcessError):
            os.waitpid(child.pid, os.WNOHANG)
        assert os.waitpid(other.pid, os.WNOHANG)[0] == other.pid
    finally:
        child.returncode = other.returncode = 0


def test_no_guest_code_is_slow_to_import():
    """Heavy modules stay out of the way until they are needed (a start is ten times slower under emulation)."""
    code = "import sys, casemate.guest.start; print(*sorted(sys.modules))"
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"cryptography.x509", "asyncio", "email", "http.client", "ssl", "ctypes", "yaml", "click", "joserfc"}
    assert not loaded & heavy
    assert "casemate.guest.localapi" not in loaded
    assert "casemate.guest.volumes" not in loaded
