"""The key that a TLS endpoint proves to hold, before anything of it is trusted: one handshake, nothing sent."""

from __future__ import annotations

import socket
import ssl

from casemate.crypto import pins
from casemate.errors import Unavailable

TIMEOUT = 20.0


def pin(host: str, port: int, timeout: float = TIMEOUT) -> str:
    """`sha256:<hex>` over the SubjectPublicKeyInfo that `host:port` shows in a handshake (RFC 8446 section 4.4.3).

    The handshake proves possession of the key; who owns it is for the caller to find out. `Unavailable` when nothing
    answers or the peer speaks no TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            certificate = secured.getpeercert(binary_form=True)
    except (OSError, ValueError) as error:
        raise Unavailable(f"{host}:{port} does not answer with TLS ({error})") from error
    if not certificate:
        raise Unavailable(f"{host}:{port} shows no certificate")
    return pins.certificate_pin(certificate)
