"""The system calls that a container may make: an allowlist, everything else fails with EPERM (seccomp(2)).

`seccomp.json` holds the names: `allow` for every container, `with_capability` for those whose manifest grants it. New
namespaces need CAP_SYS_ADMIN, so clone is allowed without the CLONE_NEW* flags only, and clone3, whose flags a filter
can't see, answers ENOSYS so that libc falls back to clone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PROFILE = Path(__file__).with_name("seccomp.json")
_EPERM, _ENOSYS = 1, 38
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)


def profile(capabilities: Iterable[str]) -> dict[str, Any]:
    """The OCI runtime spec's `linux.seccomp` for a container with these capabilities."""
    document = json.loads(PROFILE.read_text("ascii"))
    granted = set(capabilities)
    names = set(document["allow"])
    for capability, more in document["with_capability"].items():
        if capability in granted:
            names |= set(more)
    rules: list[dict[str, Any]] = [{"names": sorted(names), "action": "SCMP_ACT_ALLOW"}]
    rules += [_allow("personality", 0, value, "SCMP_CMP_EQ") for value in _PERSONALITIES]
    if "CAP_SYS_ADMIN" not in granted:
        masked = _allow("clone", 0, _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ")
        masked["args"][0]["valueTwo"] = 0
        rules += [masked, {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS}]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
    }


def _allow(name: str, index: int, value: int, operation: str) -> dict[str, Any]:
    return {
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": index, "value": value, "op": operation}],
    }
