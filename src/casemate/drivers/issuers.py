"""Keys of token issuers: JWK sets from files or over https, found by OIDC discovery, kept for a while.

Rules
1. Nothing that a caller sends decides what is fetched: addresses come from the settings, or from the discovery document
   at the issuer's own address (OpenID Connect Discovery 1.0 section 4), which must name that issuer.
2. Strangers cannot make us fetch often: a set is fetched once in `FRESH` seconds, for a key that it does not hold once
   in `AGAIN`, after a failure in `RETRY`, and never by two threads
   at a time. One thread fetches; others go on with the old set.
3. When an issuer does not answer, its last set serves for `STALE` seconds; afterwards nobody of it comes in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from casemate.crypto import jws
from casemate.drivers import http
from casemate.errors import CasemateError, Malformed, Unavailable, Unusable
from casemate.wire import jcs

FRESH, STALE, AGAIN, RETRY = 600.0, 3600.0, 30.0, 10.0
_SECONDS = 5.0
_DISCOVERY = "/.well-known/openid-configuration"


class Source(NamedTuple):
    """Where an issuer's keys are: `jwks` is a path, an https URL or empty (discovery); `ca` a file of roots or None."""

    issuer: str
    jwks: str
    ca: Path | None


class Keys:
    """The keys of one issuer. Safe for threads."""

    def __init__(self, source: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._lock = threading.Lock()
        self._known: tuple[jws.Key, ...] = ()
        self._fetched = self._tried = float("-inf")

    def named(self, kid: str | None) -> tuple[jws.Key, ...]:
        """The keys that a token with this `kid` (None: it names none) may be signed with.

        `Unavailable` when the issuer's keys are not known now.
        """
        now = self._clock()
        found = self._matching(kid)
        if now - self._fetched > FRESH or (not found and now - self._tried > AGAIN):
            self._refresh(now)
            found = self._matching(kid)
        if now - self._fetched > STALE:
            raise Unavailable("the keys of this token's issuer cannot be had at the moment", hint="try again later")
        return found

    def _matching(self, kid: str | None) -> tuple[jws.Key, ...]:
        # A token without a kid is checked against a set with one key alone, so that nobody makes us try them all.
        if kid is None:
            return self._known if len(self._known) == 1 else ()
        return tuple(key for key in self._known if key.kid == kid)

    def _refresh(self, now: float) -> None:
        if now - self._tried < RETRY:
            return
        if not (self._lock.acquire(blocking=False) if self._known else self._lock.acquire(timeout=1)):
            return
        try:
            if self._clock() - self._tried < RETRY:
                return
            self._tried = now
            self._known = jws.keys(_fetch(self._source))
            self._fetched = now
        except CasemateError:
            return  # the last set serves on, until it is stale
        finally:
            self._lock.release()


def _fetch(source: Source) -> bytes:
    if source.jwks and not source.jwks.startswith("https://"):
        return _read(Path(source.jwks))
    ca = _read(source.ca).decode("ascii", "replace") if source.ca else None
    return _get(source.jwks or _discovered(source, ca), ca)


def _discovered(source: Source, ca: str | None) -> str:
    document = jcs.parse_object(_get(source.issuer.rstrip("/") + _DISCOVERY, ca), "discovery document")
    where = document.get("jwks_uri")
    if document.get("issuer") != source.issuer or not isinstance(where, str) or not where.startswith("https://"):
        raise Malformed("discovery document: it names another issuer, or no JWK set over https")
    return where


def _get(url: str, ca: str | None) -> bytes:
    answer = http.request("GET", url, ca=ca, timeout=_SECONDS, total=_SECONDS, limit=jws.MAX_SET)
    if answer.status != 200:
        raise Unavailable(f"{url[:200]} answers {answer.status}")
    return answer.body


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(jws.MAX_SET + 1)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error
