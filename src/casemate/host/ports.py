"""Published ports: `[ADDRESS:]HOST:CONTAINER[/udp]`, loopback unless an address is given, a free port for HOST 0."""

from __future__ import annotations

import ipaddress
import re
import socket

from casemate.errors import Unusable
from casemate.host.state import LIVE, Port, State
from casemate.schema.manifest import Manifest

_FORM = re.compile(
    r"(?:(?P<address>[0-9.]{7,15}):)?(?P<host>\d{1,5}):(?P<container>\d{1,5})(?:/(?P<protocol>tcp|udp))?"
)


def parse(text: str) -> Port:
    """The port rule in `text`; `Unusable` with the form that is wanted."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise Unusable(f"--publish {text[:60]!r} is not [ADDRESS:]HOST:CONTAINER[/udp]", hint="example: 8443:443")
    host, container = int(found["host"]), int(found["container"])
    try:
        address = str(ipaddress.IPv4Address(found["address"] or "127.0.0.1"))
    except ValueError as error:
        raise Unusable(f"--publish {text[:60]!r}: {found['address']} is no IPv4 address") from error
    if host > 65535 or not 1 <= container <= 65535:
        raise Unusable(f"--publish {text[:60]!r}: a port is at most 65535")
    return Port(address=address, host=host, container=container, protocol=found["protocol"] or "tcp")


def assign(texts: tuple[str, ...], manifest: Manifest, others: list[State]) -> list[Port]:
    """The published ports, each free on this host and opened by the manifest. The caller holds the host-wide lock."""
    offered = {(rule.container, rule.protocol) for container in manifest.containers for rule in container.ports}
    taken = {(p.protocol, p.host) for other in others if other.state in LIVE for p in other.ports}
    made: list[Port] = []
    for port in map(parse, texts):
        if (port.container, port.protocol) not in offered:
            listed = ", ".join(f"{number}/{protocol}" for number, protocol in sorted(offered)) or "none"
            raise Unusable(f"the manifest opens no port {port.container}/{port.protocol}", hint=f"it opens: {listed}")
        number = _free(port, taken)
        taken.add((port.protocol, number))
        made.append(Port(address=port.address, host=number, container=port.container, protocol=port.protocol))
    return made


def _free(port: Port, taken: set[tuple[str, int]]) -> int:
    """The host port, or for 0 any free one; another workload's counts as used even before its QEMU listens."""
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    for _ in range(50):
        if port.host and (port.protocol, port.host) in taken:
            break
        with socket.socket(socket.AF_INET, kind) as trial:
            if port.protocol == "tcp":
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((port.address, port.host))
            except OSError as error:
                raise Unusable(
                    f"port {port.address}:{port.host} can't be published ({error.strerror})", hint="choose another port"
                ) from error
            number = int(trial.getsockname()[1])
        if (port.protocol, number) not in taken:
            return number
    raise Unusable(f"port {port.host} is published by another workload", hint="casemate ps shows which")
