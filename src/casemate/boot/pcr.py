"""PCR values that follow from a launch's files, for OVMF booting a kernel that QEMU hands over (direct boot).

PCR 4 holds the kernel, the boot action and the separator (OVMF loads a handed-over kernel before it boots it); PCR 9
the load options and the initrd (Linux EFI stub, TCG PC Client Platform Firmware Profile 1.06); PCR 8 what the measured
initrd extends. All in the SHA-256 bank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from casemate.boot import authenticode
from casemate.schema.launch import Launch

__all__ = ["direct_boot", "from_digests", "replay"]

_ACTION = b"Calling EFI Application from Boot Option"
_SEPARATOR = bytes(4)


def direct_boot(launch: Launch) -> dict[str, str]:
    """`pcr4`, `pcr9` and, with initdata, `pcr8`, as lower-case hex. A kernel that is no PE is `Malformed`."""
    return from_digests(
        authenticode.sha256(launch.kernel), _digest(launch.initrd), launch.command_line, launch.initdata_digest
    )


def from_digests(kernel: bytes, initrd: bytes, command_line: str, initdata: bytes | None) -> dict[str, str]:
    """The same from digests (32 bytes each): the kernel's Authenticode, the initrd's and the initdata's SHA-256."""
    values = {
        "pcr4": replay([kernel, _digest(_ACTION), _digest(_SEPARATOR)]),
        "pcr9": replay([_digest(_load_options(command_line)), initrd]),
    }
    if initdata is not None:
        values["pcr8"] = replay([initdata])
    return {name: value.hex() for name, value in values.items()}


def replay(digests: Iterable[bytes]) -> bytes:
    """A SHA-256 register that starts at zero and is extended by each of `digests` in turn."""
    register = bytes(32)
    for digest in digests:
        register = hashlib.sha256(register + digest).digest()
    return register


def _load_options(command_line: str) -> bytes:
    # OVMF itself appends the initrd's name, and the stub measures the text with its terminator.
    return (command_line + " initrd=initrd\0").encode("utf-16-le")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
