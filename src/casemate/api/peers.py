"""Who asks: strangers are told apart by address, so that one of them can't take what is there for all.

An IPv6 peer is its /64, because every peer has that many addresses. Loopback may be a proxy, or every guest of this
machine: it gets nearly everything.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

LOOPBACK = "loopback"
_PART = 8  # an address gets one eighth; loopback gets all but one eighth


@lru_cache(maxsize=4096)
def peer(address: str | None) -> str:
    """The name under which an address (None: not known) is counted."""
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return LOOPBACK if found.is_loopback else str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
        found = found.ipv4_mapped
    return LOOPBACK if found.is_loopback else str(found)


def share(name: str, whole: int) -> int:
    """How much of `whole` one peer may have, at least 1."""
    return max(1, whole - whole // _PART if name == LOOPBACK else whole // _PART)
