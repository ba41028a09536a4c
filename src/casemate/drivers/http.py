"""HTTP/1.1 client on the standard library, for guest and host: small, bounded, and pinned before a byte is sent.

Rules
1. `https` with a `pin` trusts the key with that pin and nothing else (no CA, no name): `casemate.crypto.pins`. Without
   a pin the system's CAs, or those in `ca` (PEM), decide. `http` works only with ``insecure=True``.
2. Every wait is bounded: `timeout` seconds of silence, `total` seconds for a whole exchange, `limit` bytes of body.
3. Failures of transport are `Unavailable` (trying again may help); a wrong pin is `Refused`; an answer that breaks HTTP
   or its own Content-Length is `Unavailable`. Any HTTP status is an answer, judged by the caller, redirects too.
4. Nothing is retried here, except a GET or HEAD on a kept connection that the peer had closed; see `retrying`.
"""

from __future__ import annotations

import http.client
import os
import random
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from casemate.crypto import pins
from casemate.drivers.deadline import CHUNK, TimedSocket
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.wire import jcs

TIMEOUT = 30.0
TOTAL = 120.0
STREAM_TOTAL = 3600.0
LIMIT = 8 << 20

T = TypeVar("T")
Body = bytes | Iterable[bytes]


@dataclass(frozen=True)
class Response:
    """A whole answer; header names are lower-case, repeated headers are joined by a comma."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)  # tokens and cookies do not belong in a trace

    def json(self, *, values: int = jcs.MAX_VALUES) -> dict[str, Any]:
        """The body as a JSON object of at most that many values; anything else is `Malformed`."""
        return jcs.parse_object(self.body, "answer", values=values)


class Stream:
    """An answer whose body is read as it comes: `status`, `headers`, then `chunks()` or `read()`, once."""

    def __init__(self, raw: http.client.HTTPResponse, origin: str, limit: int) -> None:
        self.status = raw.status
        self.headers: Mapping[str, str] = _headers(raw)
        self._raw, self._origin, self._limit = raw, origin, limit

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """Pieces of at most `size` bytes; more than the limit is `Unavailable`, and so is an early end."""
        seen = 0
        with _transport(self._origin):
            # read1 would hide an early end of a body with Content-Length; read(size) raises or comes up short.
            while piece := self._raw.read(size):
                seen += len(piece)
                if seen > self._limit:
                    raise Unavailable(f"{self._origin} sent more than {self._limit} bytes")
                yield piece
            if self._raw.length:
                raise Unavailable(f"{self._origin} ended its answer {self._raw.length} bytes early")

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks())


class Connection:
    """One origin (`https://host:port`), one kept connection. Not for use by several threads at a time.

    Path components of `url` beyond the origin are ignored; each request names its own path.
    """

    def __init__(
        self,
        url: str,
        *,
        pin: str | None = None,
        ca: str | None = None,
        timeout: float = TIMEOUT,
        insecure: bool = False,
    ) -> None:
        self._tls, self._host, self._port = _origin(url, insecure=insecure)
        self.origin = f"{'https' if self._tls else 'http'}://{self._host}:{self._port}"
        if pin is not None and not pins.is_digest(pin):
            raise Unusable("a pin has the form sha256:<64 hex digits>")
        if pin is not None and not self._tls:
            raise Unusable(f"{self.origin}: a pin needs https")
        self._pin, self._ca, self._timeout = pin, ca, timeout
        self._open: http.client.HTTPConnection | None = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; the next request makes a new one."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        total: float = TOTAL,
        limit: int = LIMIT,
    ) -> Response:
        """One exchange; the answer's body has at most `limit` bytes."""
        with self.stream(method, path, headers=headers, body=body, total=total, limit=limit) as answer:
            return Response(answer.status, answer.headers, answer.read())

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        total: float = STREAM_TOTAL,
        limit: int = LIMIT,
    ) -> Iterator[Stream]:
        """One exchange with the body left to read. An unread rest closes the connection."""
        raw = self._exchange(method, path, dict(headers or {}), body, time.monotonic() + total)
        try:
            if raw.length is not None and raw.length > limit and method != "HEAD":
                raise Unavailable(f"{self.origin} announces {raw.length} bytes, at most {limit} are wanted")
            yield Stream(raw, self.origin, limit)
        finally:
            if not raw.isclosed():
                raw.close()
                self.close()

    def _exchange(
        self, method: str, path: str, headers: dict[str, str], body: Body | None, deadline: float
    ) -> http.client.HTTPResponse:
        reused = self._alive()
        try:
            return self._send(method, path, headers, body, deadline)
        except Unavailable:
            self.close()
            # A peer may close an idle connection at the moment of our request: only what is safe to repeat is repeated.
            if not (reused and method in ("GET", "HEAD")):
                raise
            return self._send(method, path, headers, body, deadline)
        except BaseException:
            self.close()
            raise

    def _send(
        self, method: str, path: str, headers: dict[str, str], body: Body | None, deadline: float
    ) -> http.client.HTTPResponse:
        with _transport(self.origin):
            if self._open is None:
                self._open = self._connect(deadline)
            connection = self._open
            if isinstance(connection.sock, TimedSocket):
                connection.sock.deadline = deadline
            try:
                connection.request(method, path or "/", body=body, headers=headers)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                # A server that refuses a long body answers and hangs up; its answer says why.
                connection._HTTPConnection__state = "Request-sent"  # type: ignore[attr-defined] # the only way to read it
            return connection.getresponse()

    def _alive(self) -> bool:
        """Whether a kept connection can be used: one that turned readable while idle was closed by the peer."""
        if self._open is None or self._open.sock is None:
            self.close()
            return False
        if select.select([self._open.sock.fileno()], [], [], 0)[0]:
            self.close()
            return False
        return True

    def _connect(self, deadline: float) -> http.client.HTTPConnection:
        wait = max(0.01, min(self._timeout, deadline - time.monotonic()))
        plain = socket.create_connection((self._host, self._port), timeout=wait)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = self._secure(plain) if self._tls else plain
        except BaseException:
            plain.close()
            raise
        connection = http.client.HTTPConnection(self._host, self._port)
        connection.sock = TimedSocket(sock, self._timeout, deadline)
        connection.auto_open = 0
        return connection

    def _secure(self, plain: socket.socket) -> ssl.SSLSocket:
        if self._pin is None:
            context = ssl.create_default_context(cadata=self._ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            return context.wrap_socket(plain, server_hostname=self._host)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin below is the check: the key itself, whoever certified it
        secured = context.wrap_socket(plain, server_hostname=self._host)
        der = secured.getpeercert(binary_form=True) or b""
        try:
            found = pins.certificate_pin(der)
        except Malformed:
            found = "no readable certificate"
        if found != self._pin:  # both are public
            secured.close()
            raise Refused.because(
                "tls.pin",
                expected=self._pin,
                found=found,
                hint=f"{self.origin} has another key than the one that is pinned: another server answers there",
            )
        return secured


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: Body | None = None,
    pin: str | None = None,
    ca: str | None = None,
    timeout: float = TIMEOUT,
    total: float = TOTAL,
    limit: int = LIMIT,
    insecure: bool = False,
) -> Response:
    """One exchange on a connection of its own. See the module's rules for every argument."""
    with Connection(url, pin=pin, ca=ca, timeout=timeout, insecure=insecure) as connection:
        return connection.request(method, target(url), headers=_once(headers), body=body, total=total, limit=limit)


@contextmanager
def stream(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: Body | None = None,
    pin: str | None = None,
    ca: str | None = None,
    timeout: float = TIMEOUT,
    total: float = STREAM_TOTAL,
    limit: int = LIMIT,
    insecure: bool = False,
) -> Iterator[Stream]:
    """As `request`, with the body left to read: ``with http.stream("GET", url) as answer: answer.chunks()``."""
    with (
        Connection(url, pin=pin, ca=ca, timeout=timeout, insecure=insecure) as connection,
        connection.stream(method, target(url), headers=_once(headers), body=body, total=total, limit=limit) as answer,
    ):
        yield answer


def retrying(
    call: Callable[[], T],
    *,
    attempts: int = 5,
    backoff: float = 0.5,
    longest: float = 8.0,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """`call()` until it answers, at most `attempts` times; only `Unavailable` is worth another try.

    Waits `backoff` seconds, doubled each time up to `longest`, each shortened at random by up to half so that many
    guests of one broker do not come back at once.
    """
    for attempt in range(attempts - 1):
        try:
            return call()
        except Unavailable:
            wait = min(longest, backoff * 2**attempt)
            sleep(wait * (1 - random.random() / 2))  # noqa: S311 - spreads load, keeps no secret
    return call()


def target(url: str) -> str:
    """The path and query of `url`, as the request line wants them."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _origin(url: str, *, insecure: bool) -> tuple[bool, str, int]:
    """(tls, host, port) of `url`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Unusable(f"URL {url[:200]!r} cannot be read") from error
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise Unusable(f"URL {url[:200]!r} cannot be used", hint="http(s)://host[:port]/path is wanted")
    if parts.scheme == "http" and not insecure:
        raise Unusable(f"{url[:200]!r} is not encrypted", hint="use https, or ask for an insecure connection")
    return parts.scheme == "https", host, port or (443 if parts.scheme == "https" else 80)


@contextmanager
def _transport(origin: str) -> Iterator[None]:
    """Every failure of transport as `Unavailable` with a sentence."""
    try:
        yield
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "TLS failed"
        raise Unavailable(f"{origin} cannot be reached over TLS: {reason}") from error
    except TimeoutError as error:
        raise Unavailable(f"{origin} did not answer in time") from error
    except ConnectionRefusedError as error:
        raise Unavailable(f"{origin} refused the connection", hint="is the service running there?") from error
    except http.client.IncompleteRead as error:
        raise Unavailable(f"{origin} ended its answer early") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise Unusable("the request's path or a header has characters that HTTP does not allow") from error
    except http.client.RemoteDisconnected as error:
        raise Unavailable(f"{origin} closed the connection without an answer") from error
    except http.client.HTTPException as error:
        raise Unavailable(f"{origin} does not answer in HTTP ({type(error).__name__})") from error
    except OSError as error:
        raise Unavailable(
            f"{origin} cannot be reached: {os.strerror(error.errno) if error.errno else error}"
        ) from error


def _headers(raw: http.client.HTTPResponse) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in raw.getheaders():
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def _once(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {"Connection": "close", **(headers or {})}
