"""The TEE rooms and their register: one folder holds all that is known of a TEE; here is the only list of names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from casemate.errors import Unusable
from casemate.tee.room import Room

ROOMS: dict[str, str] = {
    "tpm": "casemate.tee.tpm",
    "snp": "casemate.tee.snp",
    "tdx": "casemate.tee.tdx",
    "nitro": "casemate.tee.nitro",
    "sgx": "casemate.tee.sgx",
    "cca": "casemate.tee.cca",
    "csv": "casemate.tee.csv",
    "se": "casemate.tee.se",
    "az-snp-vtpm": "casemate.tee.az_snp_vtpm",
    "az-tdx-vtpm": "casemate.tee.az_tdx_vtpm",
    "nvidia": "casemate.tee.nvidia",
    "sample": "casemate.tee.sample",
}

# What a guest looks for on its own machine, in this order (CoCo's): a TEE before a TPM, which the host can always add,
# and never `sample`. Those of `REPORTED` give evidence through the kernel's report interface (`casemate.tee.tsm`).
# `SIGNS` are what the kernel shows where others can be at all: without its sign a room is not even imported, because a
# guest's start-up counts. The sign of Azure's is Hyper-V's bus; their own look is into the TPM.
REPORTED = ("tdx", "snp")
SIGNS = {
    "sgx": "/dev/attestation",
    "az-tdx-vtpm": "/sys/bus/vmbus",
    "az-snp-vtpm": "/sys/bus/vmbus",
    "csv": "/dev/csv-guest",
    "cca": "/sys/kernel/config/tsm/report",
    "nitro": "/dev/nsm",
}
COLLECTED = ("tdx", "sgx", "az-tdx-vtpm", "az-snp-vtpm", "snp", "csv", "cca", "nitro", "tpm")


def room(tee: str) -> Room:
    """The room of a TEE by its wire name, imported when asked for; an unknown name is `Unusable`."""
    if tee not in ROOMS:
        raise Unusable(f"TEE {tee[:32]!r} is not known", hint="known: " + ", ".join(sorted(ROOMS)))
    return cast(Room, import_module(ROOMS[tee]))


def gatherer(tee: str) -> Callable[[Any], Any]:
    """The room's `gather` (`casemate.tee.files`: a `Case` to `Gathered`, or None), imported when asked for.

    Its types are not named here: a guest imports this register and never sorts files.
    """
    if tee not in ROOMS:
        raise Unusable(f"TEE {tee[:32]!r} is not known", hint="known: " + ", ".join(sorted(ROOMS)))
    return cast("Callable[[Any], Any]", import_module(f"{ROOMS[tee]}.files").gather)
