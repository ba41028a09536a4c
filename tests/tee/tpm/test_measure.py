"""What the TPM room predicts and asks of the hypervisor."""

from __future__ import annotations

import hashlib

import pytest

from casemate.boot import pcr
from casemate.schema.launch import Launch
from casemate.tee import room

TPM = room("tpm")


def test_the_machine_is_an_ordinary_one_with_a_software_tpm() -> None:
    machine = TPM.machine(Launch())
    assert (machine.machine, machine.firmware, machine.vtpm) == ("q35", "generic", True)
    assert (machine.needs_kvm, machine.protected_memory, machine.objects) == (False, False, ())


def test_computed_registers_stand_beside_recorded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"document").digest()
    monkeypatch.setattr("casemate.boot.authenticode.sha256", lambda kernel: hashlib.sha256(kernel).digest())
    recorded = {"pcr0": "AB" * 32, "pcr4": "00" * 32, "mrtd": "ff" * 48}
    launch = Launch(kernel=b"k", initrd=b"i", command_line="quiet", initdata_digest=digest, recorded=recorded)
    measurement = TPM.measure(launch)
    assert measurement.tee == "tpm"
    assert set(measurement.values) == {"pcr0", "pcr4", "pcr8", "pcr9"}
    assert measurement.values["pcr0"] == "ab" * 32
    assert measurement.values["pcr4"] == pcr.direct_boot(launch)["pcr4"]  # never the recorded one
    assert measurement.values["pcr8"] == hashlib.sha256(bytes(32) + digest).hexdigest()
