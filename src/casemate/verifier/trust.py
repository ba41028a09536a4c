"""What a relying party trusts: a broker by its pin, the anchors of platforms, and reference values; from a file.

Nothing that the checked service says can add to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from casemate.crypto import pins
from casemate.drivers import brokerclient, userfiles
from casemate.errors import Malformed, Unusable
from casemate.ledger import history
from casemate.ledger.history import History
from casemate.schema.app import AppStatement
from casemate.schema.endorsements import DEVELOPMENT, PRODUCTION, Anchor
from casemate.schema.reference import ReferenceValues
from casemate.wire import jcs
from casemate.wire.encoding import b64, unb64

LIMIT = 1 << 20


@dataclass(frozen=True)
class Trust:
    """A relying party's trust file, read."""

    broker_url: str
    broker_pin: str
    anchors: tuple[Anchor, ...]
    references: tuple[ReferenceValues, ...]
    log: History | None = None

    def demand_log(self) -> History:
        """Whose log the broker's is; `Unusable` for a trust file of before there was one."""
        if self.log is None:
            raise Unusable(
                "the trust file names no log",
                hint="`casemate up` writes it anew; else the operator, by `casemate trust write`",
            )
        return self.log

    def demand_platforms(self) -> None:
        """`Unusable` where the file says nothing of platforms: it is for receipts and the log alone."""
        if not (self.anchors and self.references):
            raise Unusable(
                "the trust file names no anchor or no reference value, so no service can be judged by it",
                hint="once the broker has both, its operator writes the file anew: casemate trust write",
            )

    def statement(self, app_id: str) -> AppStatement:
        """The broker's statement of an app, over a connection to the pinned key and signed by that broker."""
        return brokerclient.app_statement(self.broker_url, self.broker_pin, app_id)

    def as_document(self) -> dict[str, Any]:
        """The JSON form that `read` takes."""
        return {
            "broker": {"url": self.broker_url, "pin": self.broker_pin},
            "anchors": [
                {
                    "certificate": b64(a.certificate),
                    "platform_class": a.platform_class,
                    "name": a.name,
                    "tees": list(a.tees),
                }
                for a in self.anchors
            ],
            "reference_values": msgspec.to_builtins(list(self.references)),
            **({"log": self.log.as_document()} if self.log is not None else {}),
        }


def read(path: Path) -> Trust:
    """The trust file at `path`; `Unusable` when it is not there, `Malformed` when it breaks its format."""
    hint = (
        "`casemate up` writes one for the local domain; of another broker its operator does: "
        "`casemate trust write FILE --home FOLDER`; compare the pins"
    )
    if not path.exists():
        raise Unusable(f"no trust file at {path}", hint=hint)
    data = userfiles.read(path, LIMIT, hint=hint)
    return from_document(jcs.parse_object(data, "trust file", limit=LIMIT))


def from_document(document: dict[str, Any]) -> Trust:
    """The trust in a parsed document."""
    try:
        broker = document["broker"]
        anchors = tuple(_anchor(entry) for entry in document["anchors"])
        references = tuple(msgspec.convert(entry, ReferenceValues) for entry in document["reference_values"])
        url, pin = str(broker["url"]), str(broker["pin"])
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise Malformed(f"trust file: {error}") from error
    if not pins.is_digest(pin):
        raise Malformed("trust file: broker.pin is not sha256:<64 hex>")
    log = history.parse(document["log"]) if "log" in document else None
    if log is None and not (anchors and references):
        raise Malformed("trust file: at least one anchor and one reference value are wanted, or a log")
    return Trust(url, pin, anchors, references, log)


def of_info(url: str, pin: str, said: dict[str, Any], references: tuple[ReferenceValues, ...]) -> Trust:
    """The trust of an admin who asked the broker: `said` came over a connection to its pinned key."""
    known: dict[str, Any] = {"anchors": said.get("anchors"), "log": said.get("log"), "reference_values": []}
    read = from_document({"broker": {"url": url, "pin": pin}, **known})
    return Trust(url, pin, read.anchors, references, read.log)


def _anchor(entry: dict[str, Any]) -> Anchor:
    kind = entry.get("platform_class")
    if kind not in (DEVELOPMENT, PRODUCTION):
        raise Malformed(f"trust file: platform_class {kind!r} is neither {DEVELOPMENT} nor {PRODUCTION}")
    certificate = unb64(str(entry["certificate"]), "trust file: certificate")
    made = Anchor(certificate=certificate, platform_class=kind, name=str(entry.get("name", "")))
    if "tees" not in entry:  # a file of before anchors named TEEs
        return made
    return msgspec.structs.replace(made, tees=msgspec.convert(entry["tees"], tuple[str, ...]))
