"""The VM's packet filter: from outside only the manifest's ports, everything else is dropped (nft(8))."""

from __future__ import annotations

import subprocess

from casemate.errors import Unavailable
from casemate.schema.manifest import Manifest

TIMEOUT = 30.0


def ruleset(manifest: Manifest) -> str:
    """The nft script; containers share the VM's network, so what they may be asked is decided at its edge."""
    lines = []
    for protocol in ("tcp", "udp"):
        ports = sorted({r.container for c in manifest.containers for r in c.ports if r.protocol == protocol})
        if ports:
            lines.append(f"    {protocol} dport {{ {', '.join(map(str, ports))} }} accept")
    return "\n".join(
        (
            "table inet casemate",
            "delete table inet casemate",
            "table inet casemate {",
            "  chain input {",
            "    type filter hook input priority 0; policy drop;",
            '    iifname "lo" accept',
            "    ct state established,related accept",
            *lines,
            "  }",
            "  chain forward { type filter hook forward priority 0; policy drop; }",
            "}",
            "",
        )
    )


def apply(rules: str) -> None:
    """Load the rules in one transaction; `Unavailable` when the kernel does not take them."""
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=rules.encode(), capture_output=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"packet filter: nft failed ({type(error).__name__})") from error
    if done.returncode:
        raise Unavailable("packet filter: " + done.stderr.decode("utf-8", "replace").strip()[:300])
