"""`casemate measure`, typed as a user would."""

import json

import pytest

import casemate.cli as cli
from casemate.schema.launch import Launch
from casemate.tee import room
from casemate.testing.ovmf import firmware, tdx_firmware


@pytest.fixture
def casemate(capfd, monkeypatch, tmp_path):
    """Call the program; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "snp.fd").write_bytes(firmware())
    (tmp_path / "tdx.fd").write_bytes(tdx_firmware())

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        done = capfd.readouterr()
        return caught.value.code, done.out, done.err

    return call


def test_a_page_and_a_document(casemate):
    wanted = room("snp").measure(Launch(firmware=firmware(), vcpus=2, vmm="ec2")).values["measurement"]
    line = ("measure", "--tee", "snp", "--firmware", "snp.fd", "--firmware-only", "--vcpus", 2, "--vmm", "ec2")
    code, out, _ = casemate(*line)
    assert (code, out) == (0, f"snp, files\n  measurement  {wanted}\n")
    told = json.loads(casemate(*line, "--json")[1])
    assert (told["tee"], told["values"], told["checks"]) == ("snp", {"measurement": wanted}, [])
    assert told["launch"] == {"vcpus": 2, "cpu_type": "", "memory_mib": 512, "vmm": "ec2"}


def test_features_are_numbers(casemate):
    line = ("measure", "--tee", "snp", "--firmware", "snp.fd", "--firmware-only", "--guest-features")
    assert casemate(*line, "0x21")[1] == casemate(*line, "33")[1] != casemate(*line, "1")[1]
    code, _, err = casemate(*line, "many")
    assert code == 2
    assert "not a number" in err


def test_a_log_of_another_machine(casemate, tmp_path):
    (tmp_path / "log").write_bytes(b"\x01\0\0\0\x03\0\0\0" + bytes(24))
    code, _, err = casemate("measure", "--tee", "tdx", "--firmware", "tdx.fd", "--firmware-only", "--event-log", "log")
    assert code == 2
    assert "sha384" in err


def test_unknown_names(casemate):
    assert casemate("measure", "--tee", "sev")[0] == 2
    code, _, err = casemate("measure", "--tee", "tdx", "--firmware", "tdx.fd", "--firmware-only", "--vmm", "xen")
    assert code == 2
    assert "qemu-two-pass" in err
    code, _, err = casemate("measure", "--tee", "tdx", "--firmware", "snp.fd", "--firmware-only")
    assert code == 2
    assert "trust domain" in err


def test_an_enclave_image(casemate, tmp_path):
    from casemate.testing import eif

    (tmp_path / "enclave.eif").write_bytes(eif.FakeImage().build())
    code, out, _ = casemate("measure", "--tee", "nitro", "--image", "enclave.eif")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()[1:]} >= {"pcr0", "pcr1", "pcr2"}
    assert casemate("measure", "--tee", "nitro", "--image", "enclave.eif", "--firmware", "snp.fd")[0] == 2


@pytest.mark.parametrize("command", [("measure",), ("guest", "measure")])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tee", "snp", "--firmware", "bad.fd"), "firmware: 9 bytes"),
        (("--tee", "snp", "--firmware", "tdx.fd"), "SEV metadata"),
        (("--tee", "tdx", "--firmware", "snp.fd"), "trust domain"),
        (("--tee", "snp", "--firmware", "snp.fd", "--cpu", "486"), "486"),
        (("--tee", "sev"), "not known"),
        (("--tee", "cca"), "not measured from a launch"),
        (("--tee", "nitro"), "image file"),
    ],
)
def test_inputs_are_looked_at_before_anything_is_built(casemate, tmp_path, monkeypatch, command, arguments, message):
    from casemate.host import guestimage

    def build(*_):
        raise AssertionError("the guest image was built first")

    monkeypatch.setattr(guestimage, "ensure", build)
    (tmp_path / "bad.fd").write_bytes(b"no pages\n")
    option = "--vcpu-type" if command == ("measure",) else "--cpu-type"
    code, out, err = casemate(*command, *(option if word == "--cpu" else word for word in arguments))
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("tee", ["tpm", "snp", "tdx"])
def test_a_rehearsal_finds_nothing_wrong_with_what_is_good(tee):
    from casemate.host import measuring

    own = {"tpm": b"", "snp": firmware(), "tdx": tdx_firmware()}[tee]
    measuring.rehearse(room(tee), Launch(firmware=own, vcpus=2))
    measuring.rehearse(room(tee), Launch())
