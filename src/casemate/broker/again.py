"""Trustee's sessions: an attested one that sends evidence again gets its token, and nothing is judged anew.

With `strict_trustee` alone. The token says what was found then, and ends when it would have ended; the first cookie of
a session, which carries its question, is still good for one answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from casemate.broker import policies
from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import Session, demand_key

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker


def token(broker: Broker, cookie: str) -> str | None:
    """The token of an attested session by its cookie; None where this is a session's first answer."""
    if not broker.settings.strict_trustee or not cookie:
        return None
    now = broker.clock()
    try:
        session = broker.cookies.open(cookie, now)
    except Unauthenticated:
        return None
    if not isinstance(session, Session):
        return None
    with broker.store.read() as tx:
        demand_key(broker, broker.store.known.at(tx), tx, session.key)
    claims = policies.claims_of(broker, session)
    return None if claims is None else broker.signer.token(session, claims["submods"], now)
