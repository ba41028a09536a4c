"""Process 1 of a guest that is looked into: prints what it finds as one JSON line and powers off. Only for tests.

The same start as the agent's, then the crypto that an attestation needs; so the time of its line is a start-up time.
"""

import ctypes
import json
import sys
from pathlib import Path

sys.path[:0] = ["/usr/lib/casemate", "/usr/lib/python3/dist-packages"]


def _text(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8").strip()
    except OSError as error:
        return f"error: {error.strerror}"


def _sign() -> int:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return len(ec.generate_private_key(ec.SECP256R1()).sign(b"probe", ec.ECDSA(hashes.SHA256())))


_signature = _sign()
_found = {
    "uptime": _text("/proc/uptime").split()[0],
    "signature": _signature,
    "pcrs": [_text(f"/sys/class/tpm/tpm0/pcr-sha256/{n}").lower() for n in range(24)],
    "event_log": Path("/sys/kernel/security/tpm0/binary_bios_measurements").read_bytes().hex(),
    "initdata": Path("/run/casemate/initdata.toml").read_bytes().hex(),
    "settings": {
        name: _text(f"/proc/sys/kernel/{name}")
        for name in ("sysrq", "modules_disabled", "kexec_load_disabled", "dmesg_restrict", "kptr_restrict")
    },
    "lockdown": _text("/sys/kernel/security/lockdown"),
    "hibernation": _text("/sys/power/disk"),
    "modules": sorted(line.split()[0] for line in _text("/proc/modules").splitlines()),
    "mounts": [line.split()[1:4] for line in _text("/proc/mounts").splitlines()],
    "interfaces": sorted(p.name for p in Path("/sys/class/net").iterdir()),
}
print("casemate-probe " + json.dumps(_found), flush=True)
ctypes.CDLL(None).reboot(0x4321FEDC)  # LINUX_REBOOT_CMD_POWER_OFF
