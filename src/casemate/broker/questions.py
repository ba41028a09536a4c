"""Step 4, what a session asks: a nonce bound to this broker's key, or the question of a TEE that has its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import structs

from casemate.broker import sessions
from casemate.broker.sessions import Challenge
from casemate.drivers.store import registry
from casemate.errors import Refused, Unusable
from casemate.release.session import make_nonce
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.tee import asking, files

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker
    from casemate.schema.kbs import AuthRequest

Extra = str | dict[str, str]


def question(broker: Broker, tee: str, asked: AuthRequest, salt: bytes) -> tuple[Challenge, Extra]:
    """The challenge to seal into the cookie, and the protocol's `extra-params` to send beside its nonce."""
    expires = sessions.until(broker.clock(), broker.settings.challenge_seconds)
    name = asking.hash_name(tee)
    extra: Extra = ""
    if name != asking.DEFAULT_HASH:
        _demand_hash(asked.extra_params, name)
        extra = {"selected-hash-algorithm": name}
    if not asking.is_own(tee):
        return Challenge(nonce=make_nonce(broker.pin, salt), tee=tee, expires=expires), extra
    found = asking.question(tee, papers(broker, tee), anchored(broker), broker.clock())
    return Challenge(nonce=found.nonce, tee=tee, expires=expires, state=found.state), extra


def anchored(broker: Broker, gathered: Endorsements | None = None) -> Endorsements:
    """`gathered` with the anchors that this broker trusts, and no others."""
    with broker.store.read() as tx:
        anchors = trusted(broker, tx)
    return structs.replace(gathered or Endorsements(), anchors=anchors)


def trusted(broker: Broker, tx: Connection) -> tuple[Anchor, ...]:
    """The anchors that this broker trusts."""
    return broker.store.known.at(tx).get("anchors", lambda: registry.anchors(tx))


def papers(broker: Broker, tee: str) -> files.Case:
    """The operator's papers for a TEE; nothing when the settings name none."""
    folder = broker.settings.papers.get(tee)
    if folder is None:
        return files.Case(())
    try:
        return files.sort(_read(broker.settings.folder / folder))
    except OSError as error:
        raise Unusable(f"the papers for {tee} cannot be read ({type(error).__name__})", hint="see `papers`") from error


def _read(folder: Path) -> list[files.File]:
    paths = sorted(path for path in folder.iterdir() if path.is_file())[: files.MAX_FILES]
    return [files.File(path.name, path.read_bytes()) for path in paths if path.stat().st_size <= files.MAX_SIZE]


def _demand_hash(params: Any, name: str) -> None:
    """A client that lists the hashes which it knows must know this one; one that lists none is believed to."""
    known = params.get("supported-hash-algorithms") if isinstance(params, dict) else None
    if isinstance(known, list) and name not in known:
        raise Refused.because(
            "session.hash",
            expected=name,
            found=", ".join(str(item)[:16] for item in known[:8]) or "none",
            hint="this TEE's evidence binds that hash; a newer client knows it",
        )
