"""The guest's side of key release (RCAR 0.4.0) with one broker: challenge, evidence, token, resources.

Rules
1. Everything goes over TLS to the key that the manifest pins; the nonce must have been made with that key
   (`release.session`), so evidence for this broker is worth nothing at another.
2. Each session has a fresh EC key of its own; what the broker releases is sealed to it.
3. A refusal (401 twice, 403) carries the broker's reasons and is final; silence is tried again, a few times.
4. Attesting anew names the lease that there is, so that it is renewed; a lease that a broker ended must be had anew
   within `RECALLED` seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from casemate.errors import CasemateError, Finding, Malformed, Refused, Unavailable, Unusable
from casemate.guest.freshness import LEASE, Lease
from casemate.release import session as rules
from casemate.schema.evidence import Evidence
from casemate.schema.manifest import Broker
from casemate.schema.request import Request
from casemate.wire import jcs

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from casemate.drivers.http import Response

T = TypeVar("T")
MAX_RESOURCE = 4 << 20
MAX_TOKEN = 96 << 10
_REASONS = 32
_TEXT = 400
_CLOSE_SECONDS = 1.0
_GIVE_BACK_SECONDS = 3.0
RECALLED = 30.0
_SALT = rules.SALT_HEADER.lower()


class Attester(NamedTuple):
    """The wire name of a TEE and what collects its evidence on this machine."""

    tee: str
    collect: Callable[[Request], Evidence]


class Resource(NamedTuple):
    """A released value and its version at the broker."""

    value: bytes
    version: str

    def __repr__(self) -> str:
        return f"Resource(version={self.version!r})"


class Session:
    """One broker, one key, one token at a time; safe for several threads (calls take turns)."""

    def __init__(
        self, broker: Broker, document: bytes, attester: Attester, *, attempts: int = 6, backoff: float = 0.5
    ) -> None:
        self._broker, self._document, self._attester = broker, document, attester
        self.url = broker.url
        self._attempts, self._backoff = attempts, backoff
        self._lock = threading.Lock()
        self._token = ""
        self._key: EllipticCurvePrivateKey | None = None
        self._connection: Any = None
        self.lease = Lease()
        self.lease_id = ""

    def login(self) -> str:
        """Attest and return the token; `Refused` with the broker's reasons, `Unavailable` when it does not answer."""
        with self._lock:
            return self._retrying(self._login)

    def resource(self, uri: str, *, known: str = "") -> Resource | None:
        """The resource `kbs:///repo/type/tag`; None when its version is still `known`."""
        headers = {"If-None-Match": f'"{known}"'} if known else {}
        path = "/kbs/v0/resource/" + uri.removeprefix("kbs:///")
        answer = self._call("GET", path, headers=headers, attempts=1 if known else 0)  # a poll comes back anyway
        if answer.status == 304:
            return None
        return Resource(self._opened(answer), _short(answer.headers.get("casemate-version", "")))

    def open_volume(self, name: str, size: int) -> dict[str, Any]:
        """The broker's word on a volume: its key, and a record or a grant to format."""
        answer = self._call("POST", f"/casemate/v0/volumes/{name}/open", {"size": size})
        return jcs.parse_object(self._opened(answer), "volume answer", limit=MAX_RESOURCE)

    def volume_initialised(self, name: str, grant: str, document: dict[str, Any]) -> None:
        """Spend the grant: from now on the broker gives this record and never a grant again."""
        self._call("POST", f"/casemate/v0/volumes/{name}/initialised", {"grant": grant, "record": document})

    def close(self, *, give_back: bool = False) -> None:
        """Forget token and key, and hang up; a call that a silent broker holds is not waited for long.

        With `give_back` the lease ends now, so that another guest may have its place.
        """
        mine = self._lock.acquire(timeout=_CLOSE_SECONDS)
        if mine and give_back and self._token and self.lease_id:
            self._give_back()
        self._token, self._key = "", None
        if mine:
            self._hang_up()
            self._lock.release()

    def _call(
        self,
        method: str,
        path: str,
        document: dict[str, Any] | None = None,
        *,
        headers: dict[str, str] | None = None,
        attempts: int = 0,
    ) -> Response:
        """A request with the token; an expired token is renewed once by attesting again."""

        def once() -> Response:
            for last in (False, True):
                if not self._token:
                    self._login()
                bearer = {"Authorization": f"Bearer {self._token}", **(headers or {})}
                asked = time.monotonic()
                answer = self._send(method, path, document, bearer)
                if answer.status != 401 or last:
                    self._note(answer, asked)
                    return self._judged(answer, f"{method} {path}")
                self._token = ""
                if _recalled(answer):
                    self.lease = self.lease.shortened(asked, RECALLED)
            raise AssertionError

        with self._lock:
            return self._retrying(once, attempts)

    def _login(self) -> str:
        from cryptography.hazmat.primitives.asymmetric import ec

        from casemate.crypto import jwk

        self._key = key = ec.generate_private_key(ec.SECP256R1())
        public = jwk.from_public_key(key.public_key())
        hello = {"version": rules.PROTOCOL, "tee": self._attester.tee, "extra-params": {}}
        challenge = self._judged(self._send("POST", "/kbs/v0/auth", hello, {}), "challenge")
        nonce = challenge.json().get("nonce")
        if not isinstance(nonce, str) or len(nonce) > 128:
            raise Malformed("challenge: no nonce")
        rules.demand_nonce(nonce, self._broker.key, challenge.headers.get(_SALT, ""))
        evidence = self._attester.collect(self._request(nonce, public))
        body = {
            "init-data": {"format": "toml", "body": self._document.decode("utf-8")},
            "runtime-data": {"nonce": nonce, "tee-pubkey": public},
            "tee-evidence": {"primary_evidence": evidence.primary, "additional_evidence": evidence.additional},
        }
        held = {rules.LEASE_ID_HEADER: self.lease_id} if self.lease_id else {}
        asked = time.monotonic()
        answer = self._send("POST", "/kbs/v0/attest", body, {"Cookie": _cookie(challenge), **held})
        token = self._judged(answer, "attestation").json().get("token")
        if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN or not token.isascii() or " " in token:
            raise Malformed("attestation: no token")
        self._token = token
        self._note(answer, asked)
        return token

    def _note(self, answer: Response, asked: float) -> None:
        """What an answer says of the lease: attesting renews it, any other answer says what is left of it."""
        told, lease_id = (answer.headers.get(name.lower(), "") for name in (rules.LEASE_HEADER, rules.LEASE_ID_HEADER))
        if not told.isascii() or not told.isdigit() or len(told) > 9:
            return  # a broker that knows no leases
        if lease_id:
            self.lease, self.lease_id = Lease.given(asked, int(told)), lease_id[:64]
        else:
            self.lease = self.lease.shortened(asked, int(told))

    def _give_back(self) -> None:
        from casemate.drivers import http

        self._hang_up()
        with http.Connection(self._broker.url, pin=self._broker.key, timeout=_GIVE_BACK_SECONDS) as connection:
            bearer = {"Authorization": f"Bearer {self._token}"}
            try:
                connection.request("DELETE", "/casemate/v0/lease", headers=bearer, total=_GIVE_BACK_SECONDS)
            except CasemateError:
                return  # it ends by itself

    def _request(self, nonce: str, public: dict[str, Any]) -> Request:
        import hashlib

        digest = hashlib.sha256(self._document).digest()
        return Request(report_data=rules.report_data(nonce, public), initdata_digest=digest)

    def _opened(self, answer: Response) -> bytes:
        from casemate.crypto import jwe

        if self._key is None:
            raise Unavailable("the session was closed")
        return jwe.open_(jcs.parse_object(answer.body, "released resource", limit=MAX_RESOURCE), self._key)

    def _send(self, method: str, path: str, document: dict[str, Any] | None, headers: dict[str, str]) -> Response:
        from casemate.drivers import http

        if self._connection is None:
            self._connection = http.Connection(self._broker.url, pin=self._broker.key)
        body = None if document is None else jcs.canonical(document)
        kind = {} if body is None else {"Content-Type": "application/json"}
        answer: Response = self._connection.request(
            method, path, headers={**kind, **headers}, body=body, limit=MAX_RESOURCE
        )
        return answer

    def _judged(self, answer: Response, what: str) -> Response:
        if answer.status in (200, 201, 204, 304):
            return answer
        raise _error(answer, what, self._broker.url)

    def _retrying(self, call: Callable[[], T], attempts: int = 0) -> T:
        from casemate.drivers import http

        def fresh() -> T:
            try:
                return call()
            except Unavailable:
                self._hang_up()
                raise

        return http.retrying(fresh, attempts=attempts or self._attempts, backoff=self._backoff)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def find_attester() -> Attester:
    """The TEE that this machine is in, by the register's order; `Unusable` when none is found."""
    from importlib import import_module
    from pathlib import Path

    from casemate import tee
    from casemate.tee import tsm

    reported = tsm.REPORTS.is_dir()  # else their rooms need not be imported: start-up counts
    for name in tee.COLLECTED:
        if not (reported if name in tee.REPORTED else Path(tee.SIGNS.get(name, "/")).exists()):
            continue
        try:
            collector = import_module(f"{tee.ROOMS[name]}.collect")
        except ModuleNotFoundError:  # an image carries the rooms of the platforms that it is made for
            continue
        if collector.present():
            return Attester(name, collector.collect)
    raise Unusable("this machine shows no TEE that is known", hint="start the VM with a TPM or in a TEE")


def _cookie(answer: Response) -> str:
    """The session cookie as it goes back; several Set-Cookie headers are joined by the client."""
    for part in answer.headers.get("set-cookie", "").split(","):
        pair = part.split(";", 1)[0].strip()
        if pair.startswith(rules.COOKIE + "=") and len(pair) < 8192:
            return pair
    raise Malformed("challenge: no session cookie")


def _error(answer: Response, what: str, url: str) -> Exception:
    """The broker's answer as an error: its reasons where it refuses, its sentence in any case."""
    try:
        document = answer.json()
    except Malformed:
        document = {}
    detail = _short(document.get("detail", ""))
    if answer.status in (401, 403, 404):
        findings = _findings(document.get("reasons"))
        expected = "a release by the broker"
        return Refused(findings or [Finding("broker.refused", expected, f"HTTP {answer.status}: {detail}", "")])
    if answer.status in (408, 425, 429) or answer.status >= 500:
        return Unavailable(f"{url} can't serve the {what} now (HTTP {answer.status}) {detail}".rstrip())
    return Unusable(f"{url} did not accept the {what} (HTTP {answer.status}) {detail}".rstrip())


def _recalled(answer: Response) -> bool:
    """Whether a 401 says that the lease is over, not only the token."""
    try:
        return LEASE in [finding.rule for finding in _findings(answer.json().get("reasons"))]
    except Malformed:
        return False


def _findings(reasons: Any) -> list[Finding]:
    if not isinstance(reasons, list):
        return []
    found = []
    for item in reasons[:_REASONS]:
        if isinstance(item, dict) and item.get("result") != "pass":
            rule, expected, seen, hint = (_short(item.get(word, "")) for word in ("rule", "expected", "found", "hint"))
            found.append(Finding(rule, expected, seen, hint))
    return found


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(c for c in text[:_TEXT] if c.isprintable())
