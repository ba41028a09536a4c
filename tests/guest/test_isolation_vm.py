"""Containers in the real guest, looked at from inside: nothing is open that the manifest did not open."""

import pytest

from casemate.testing import boots

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

DENIED = (
    *("write_root", "write_secret", "write_sys", "write_proc", "mknod", "mount", "unshare", "chroot", "kmem"),
    *("kcore", "disk", "dmesg", "tpm_device", "loopback", "other"),
)
DEVICES = {"core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom"}


@pytest.fixture(scope="module")
def facts(request):
    image = boots.probe_image(request.path.with_name("isolation_probe.py"))
    done = boots.boot(image, boots.initdata_disk(b"{}"), timeout=240)
    assert done.facts is not None, done.console[-8:]
    return done.facts


def seen(fact):
    assert fact["code"] == 0, fact
    lines = [line.partition("=") for line in fact["out"].splitlines()]
    return {name: value for name, _, value in lines}


@pytest.mark.parametrize("who", ["user", "root"])
def test_what_a_container_sees_and_may(facts, who):
    look = seen(facts[who])
    assert set(look["devices"].split("|")) - {""} == DEVICES | {"zero"}
    caps = look["caps"].split("|")
    assert [line for line in caps if line.startswith("Cap") and not line.endswith("\t0000000000000000")] == []
    assert {"NoNewPrivs:\t1", "Seccomp:\t2"} <= set(caps)
    assert look["own"] == "value of kbs:///a/b/ownvalue of kbs:///a/b/key"
    assert look["mode"] == ("400 101 101|" if who == "user" else "400 0 0|")
    assert look["links"] == "/run/casemate/secrets/1/key|"
    assert "containers" not in look["run"]
    assert "tpm0" not in look["tpm"]
    assert "vport" not in look["tpm"]
    assert "tpm0" not in look["security"]
    assert "tsm" not in look["security"]
    assert look["hostname"] == who + "|"
    assert len([name for name in look["processes"].split("|") if name.isdigit()]) <= 4
    assert {name: look[name] for name in DENIED} == dict.fromkeys(DENIED, "denied")
    assert look["write_tmp"] == "done"


def test_a_setuid_program_gains_nothing(facts):
    assert seen(facts["user"])["setuid"] == "denied"


def test_what_the_manifest_opens_is_open_and_the_image_stays_as_it_was(facts):
    assert facts["open"]["out"] == "ok\n", facts["open"]
    assert "new" not in facts["image untouched"]


def test_limits(facts):
    assert "Killed" in facts["memory"]["err"]
    assert "can't fork" in facts["pids"]["err"]


def test_a_missing_program_is_told(facts):
    assert "/no/such" in facts["missing"]


def test_exec_stop_and_exit_code(facts):
    assert facts["exec"] == {"code": 3, "out": "0\n"}
    assert facts["stopped"] == 5


def test_exec_has_no_more_rights_than_the_container(facts):
    status = facts["exec status"].splitlines()
    assert {"NoNewPrivs:\t1", "Seccomp:\t2"} <= set(status)
    assert [line for line in status if line.startswith("Cap") and not line.endswith("\t0000000000000000")] == []


def test_a_command_that_takes_too_long_ends_in_the_container_too(facts):
    assert facts["late"]["code"] != 0
    assert not facts["late"]["left"], facts["cmdlines"]


@pytest.mark.parametrize("who", ["user", "root"])
def test_the_machines_devices_are_nowhere_in_sys(facts, who):
    look = seen(facts[who])
    hidden = {"/sys/class/tpm", "/sys/class/tpmrm", "/sys/bus/serial"}  # names of folders in which nothing is found
    assert set(look["machine"].split("|")) - {""} <= hidden
    assert "No such file" in look["six"]


def test_the_packet_filter_is_loaded(facts):
    assert "policy drop" in facts["rules"]
    assert "8443" in facts["rules"]


def test_each_collector_is_in_the_image_and_only_the_tpm_is_there(facts):
    assert facts["attester"] == "tpm"
    assert facts["collectors"] == [False, False, True]


def test_the_agent_stays_small(facts):
    assert facts["agent_kib"] < 60 << 10
    assert 400 <= facts["memory_mib"] <= 512
