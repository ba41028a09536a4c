"""What opens the log's entries, at rest: salt and fields as JSON, AES-256-GCM under a key that replicas share.

That key itself lies sealed under the master key; so a master key that sits in a device is not asked for each decision,
and a change of the master key touches one row.
"""

from __future__ import annotations

import json
import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.errors import Malformed
from casemate.ledger import entry
from casemate.wire import jcs
from casemate.wire.encoding import b64u, unb64u

_LABEL = "casemate log opening v1:"


def seal(key: AESGCM, receipt: str, salt: bytes, fields: dict[str, Any]) -> bytes:
    """Salt and fields of an entry, readable only for its receipt's id."""
    iv, plain = os.urandom(12), jcs.compact({"salt": b64u(salt), "fields": fields})
    return iv + key.encrypt(iv, plain, (_LABEL + receipt).encode())


def open_(key: AESGCM, receipt: str, sealed: bytes) -> tuple[bytes, dict[str, Any]]:
    """The salt and the fields."""
    try:
        found = json.loads(key.decrypt(sealed[:12], sealed[12:], (_LABEL + receipt).encode()))
    except (InvalidTag, ValueError) as error:
        raise Malformed("log: an opening was changed or belongs elsewhere") from error
    return unb64u(found["salt"], "log: salt", size=entry.SALT_SIZE), found["fields"]
