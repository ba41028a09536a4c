"""Certificates of clients (mTLS): asked for, never demanded, and only where the settings name their CAs.

TLS checks that a certificate that is shown leads to one of `client_ca`, is current and may be a client's. Who that is,
`casemate.broker.identities` decides for each request.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from casemate.errors import Unusable

if TYPE_CHECKING:
    from casemate.broker.settings import Settings

STATE = "client_certificate"


def ask(context: ssl.SSLContext, settings: Settings) -> ssl.SSLContext:
    """Let the server ask for a certificate, when the settings say so."""
    if settings.client_ca is None:
        return context
    path = settings.folder / settings.client_ca
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise Unusable(f"{path} holds no certificates in PEM", hint="see the setting client_ca") from error
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a single certificate, or an intermediate CA, may be named
    return context


def shown(transport: asyncio.BaseTransport) -> dict[str, bytes]:
    """What a request's state tells of its connection: the client's certificate (DER), if one was shown and accepted."""
    secured = transport.get_extra_info("ssl_object")
    der = secured.getpeercert(binary_form=True) if secured is not None else None
    return {STATE: der} if der else {}
