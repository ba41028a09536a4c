"""Predicted registers against those of a real boot (tests/vectors/boot/direct-boot.json)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from casemate.boot import pcr
from casemate.errors import Malformed
from casemate.schema.launch import Launch

VECTOR = json.loads((Path(__file__).parents[1] / "vectors/boot/direct-boot.json").read_text())


def _registers(**change: str) -> dict[str, str]:
    v = {**VECTOR, **change}
    kernel, initrd, initdata = (
        bytes.fromhex(v[name]) for name in ("kernel_authenticode", "initrd_sha256", "initdata_sha256")
    )
    return pcr.from_digests(kernel, initrd, v["command_line"], initdata)


def test_equal_to_a_real_boot() -> None:
    assert _registers() == {name: VECTOR[name] for name in ("pcr4", "pcr8", "pcr9")}


@pytest.mark.parametrize(
    ("change", "register"),
    [
        ({"command_line": VECTOR["command_line"] + " init=/bin/sh"}, "pcr9"),
        ({"initrd_sha256": "00" * 32}, "pcr9"),
        ({"kernel_authenticode": "00" * 32}, "pcr4"),
        ({"initdata_sha256": "00" * 32}, "pcr8"),
    ],
)
def test_each_input_changes_its_own_register(change: dict[str, str], register: str) -> None:
    changed = _registers(**change)
    assert {name for name in changed if changed[name] != VECTOR[name]} == {register}


def test_pcr_8_is_one_extend_and_absent_without_initdata() -> None:
    digest = bytes(range(32))
    assert pcr.from_digests(bytes(32), bytes(32), "", digest)["pcr8"] == hashlib.sha256(bytes(32) + digest).hexdigest()
    assert "pcr8" not in pcr.from_digests(bytes(32), bytes(32), "", None)


def test_a_kernel_that_is_no_pe_is_malformed() -> None:
    with pytest.raises(Malformed):
        pcr.direct_boot(Launch(kernel=b"\x7fELF"))
