"""Registry client, pull and push: OCI distribution-spec 1.1 on `casemate.drivers.http`, for guest and host.

Rules
1. A registry is not trusted: sizes are the descriptor's, digests are computed, and an answer that departs from them is
   `Refused` by a named rule (``registry.size``, ``registry.digest``, ``registry.range``), not retried.
2. A transfer that breaks off goes on where it stopped (ranged GET), a bounded number of times.
3. Credentials stay with the registry and its token service (`registryauth`); a redirect is followed without them.
4. A pinned registry proves its TLS key on every connection to its own origin. Another origin (its token service, the
   store that a redirect names) has another key: there the public certificate authorities decide.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from casemate.crypto import pins
from casemate.drivers import http, registryauth
from casemate.drivers.registryauth import Credentials
from casemate.errors import CasemateError, Malformed, Refused, Unavailable, Unusable
from casemate.image import manifest as oci

CHUNK = 1 << 20
PIECE = 16 << 20
ATTEMPTS = 5
MAX_REDIRECTS = 5
MAX_PAGES = 100
_REDIRECTS = (301, 302, 303, 307, 308)


class Missing(Unusable):
    """The registry answers that it has no such thing."""


class Fetched(msgspec.Struct, frozen=True):
    """A manifest as stored: its bytes and their digest."""

    body: bytes
    digest: str


class Registry:
    """One registry at `host` (host[:port]); `insecure` means plain HTTP. One connection: not for several threads.

    `pin` is the pin of its TLS key; another key is `Refused` (rule ``tls.pin``) before a byte is sent.
    """

    def __init__(
        self,
        host: str,
        *,
        insecure: bool = False,
        credentials: Credentials | None = None,
        pin: str | None = None,
        timeout: float = http.TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = host
        self._insecure, self._credentials, self._pin = insecure, credentials, pin
        self._timeout, self._sleep = timeout, sleep
        self._origin = f"{'http' if insecure else 'https'}://{self.host}"
        self._connection = http.Connection(self._origin, pin=pin, timeout=timeout, insecure=insecure)
        self._authorization: dict[str, str] = {}

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection."""
        self._connection.close()

    # -- reading

    def manifest(self, repository: str, target: str) -> Fetched:
        """The manifest at a tag or digest. A digest is compared (rule ``image.manifest.digest``)."""
        path = f"/v2/{repository}/manifests/{target}"

        def ask() -> http.Response:
            headers = {"Accept": ", ".join(oci.ACCEPTED)}
            answer = self._whole("GET", path, repository, headers, limit=oci.MAX_MANIFEST)
            self._demand(answer.status, (200,), f"manifest {repository}:{target}")
            return answer

        answer = http.retrying(ask, attempts=ATTEMPTS, sleep=self._sleep)
        found = pins.digest(answer.body)
        if pins.is_digest(target) and not hmac.compare_digest(found, target):
            raise Refused.because(
                "image.manifest.digest", expected=target, found=found, hint="the registry serves another image"
            )
        return Fetched(answer.body, found)

    def stored(self, repository: str, descriptor: oci.Descriptor) -> Iterator[bytes]:
        """A blob's bytes as they come, no more than its size and no fewer; the caller judges the digest."""
        seen = breaks = 0
        allowed = ATTEMPTS + descriptor.size // (64 << 20)
        while True:
            try:
                for chunk in self._from(repository, descriptor, seen):
                    seen += len(chunk)
                    yield chunk
                if seen < descriptor.size:
                    raise Unavailable(f"{self.host} sent {seen} of {descriptor.size} bytes of {descriptor.digest}")
                break
            except Unavailable:
                breaks += 1
                if breaks >= allowed:
                    raise
                self._sleep(min(8.0, 0.5 * 2.0 ** (breaks - 1)))

    def blob(self, repository: str, descriptor: oci.Descriptor) -> Iterator[bytes]:
        """As `stored`, and the last step compares the digest (rule ``registry.digest``)."""
        digest = hashlib.sha256()
        for chunk in self.stored(repository, descriptor):
            digest.update(chunk)
            yield chunk
        found = "sha256:" + digest.hexdigest()
        if not hmac.compare_digest(found, descriptor.digest):
            raise Refused.because(
                "registry.digest",
                expected=descriptor.digest,
                found=found,
                hint=f"{self.host} does not serve what was pushed: push the image again",
            )

    def small(self, repository: str, descriptor: oci.Descriptor, *, limit: int) -> bytes:
        """A whole blob of at most `limit` bytes, its digest compared."""
        if descriptor.size > limit:
            raise Malformed(f"blob {descriptor.digest}: {descriptor.size} bytes, at most {limit} allowed")
        return b"".join(self.blob(repository, descriptor))

    def tags(self, repository: str) -> list[str]:
        """Every tag of a repository (bounded by `MAX_PAGES` pages)."""
        found: list[str] = []
        path: str | None = f"/v2/{repository}/tags/list?n=1000"
        for _ in range(MAX_PAGES):
            if path is None:
                break
            answer = self._whole("GET", path, repository, {"Accept": "application/json"})
            self._demand(answer.status, (200,), f"tags of {repository}")
            names = answer.json().get("tags") or []
            found += [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
            path = self._next_page(answer.headers.get("link", ""))
        return found

    def referrers(self, repository: str, digest: str) -> tuple[oci.Descriptor, ...]:
        """What refers to a manifest: by the API, or by the fallback tag ``sha256-<hex>`` where there is none."""
        answer = self._whole("GET", f"/v2/{repository}/referrers/{digest}", repository, {"Accept": oci.OCI_INDEX})
        try:
            # Only 404 tells that the API is absent, but old registries answer all sorts of things to unknown paths.
            body = answer.body if answer.status == 200 else self.manifest(repository, digest.replace(":", "-")).body
            index = oci.parse(body)
        except Missing:
            return ()
        return index.manifests if isinstance(index, oci.Index) else ()

    # -- writing

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository holds a blob. A redirect to its store says yes, too."""
        status = self._whole("HEAD", f"/v2/{repository}/blobs/{digest}", repository, {}, push=True).status
        return status == 200 or status in _REDIRECTS

    def put_blob(self, repository: str, digest: str, size: int, chunks: Iterable[bytes]) -> bool:
        """Upload a blob unless it is there (then False). Pieces of `PIECE` bytes; one piece goes in a single PUT."""
        if self.has_blob(repository, digest):
            return False
        answer = self._whole("POST", f"/v2/{repository}/blobs/uploads/", repository, {}, body=b"", push=True)
        self._demand(answer.status, (202,), f"upload to {repository}")
        place, sent = self._place(answer.headers), 0
        for piece, last in _pieces(chunks):
            headers = {"Content-Type": "application/octet-stream"}
            if last and sent == 0:
                return self._put(repository, place, digest, headers, piece)
            headers["Content-Range"] = f"{sent}-{sent + len(piece) - 1}"
            answer = self._whole("PATCH", place, repository, headers, body=piece, push=True)
            self._demand(answer.status, (202, 204), f"upload to {repository}")
            place, sent = self._place(answer.headers), sent + len(piece)
        if sent != size:
            raise Unusable(f"blob {digest}: {sent} bytes to upload, {size} promised")
        return self._put(repository, place, digest, {}, b"")

    def put_manifest(self, repository: str, target: str, body: bytes, media_type: str) -> str:
        """Store a manifest at a tag or digest; its digest."""
        path = f"/v2/{repository}/manifests/{target}"
        answer = self._whole("PUT", path, repository, {"Content-Type": media_type}, body=body, push=True)
        self._demand(answer.status, (200, 201, 202), f"push of {repository}:{target}")
        return pins.digest(body)

    # -- beneath

    def _put(self, repository: str, place: str, digest: str, headers: dict[str, str], body: bytes) -> bool:
        target = place + ("&" if "?" in place else "?") + "digest=" + quote(digest, safe="")
        answer = self._whole("PUT", target, repository, headers, body=body, push=True)
        self._demand(answer.status, (200, 201, 202, 204), f"upload of {digest}")
        return True

    def _from(self, repository: str, descriptor: oci.Descriptor, start: int) -> Iterator[bytes]:
        """The blob's bytes from `start` on, from one exchange."""
        wanted = descriptor.size - start
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-{descriptor.size - 1}"  # both ends: some registries refuse an open range
        with self._stream(f"/v2/{repository}/blobs/{descriptor.digest}", repository, headers) as answer:
            self._demand(answer.status, (200, 206), f"blob {descriptor.digest}")
            skip = start if answer.status == 200 else 0
            if answer.status == 206 and not answer.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise _lie("registry.range", f"bytes from {start} on", "another range", self.host)
            announced = answer.headers.get("content-length", "")
            if announced.isdigit() and int(announced) != wanted + skip:
                raise _lie("registry.size", f"{descriptor.digest}: {wanted + skip} bytes", f"{announced}", self.host)
            for whole in answer.chunks(CHUNK):
                chunk, skip = whole[skip:], max(0, skip - len(whole))
                wanted -= len(chunk)
                if wanted < 0:
                    raise _lie("registry.size", f"{descriptor.digest}: {descriptor.size} bytes", "more", self.host)
                if chunk:
                    yield chunk

    def _whole(
        self,
        method: str,
        path: str,
        repository: str,
        headers: dict[str, str],
        *,
        body: bytes | None = None,
        push: bool = False,
        limit: int = 1 << 20,
    ) -> http.Response:
        """One exchange; a 401 is answered once."""
        scope = f"repository:{repository}:{'pull,push' if push else 'pull'}"

        def ask() -> http.Response:
            given = {**headers, **self._authorized(scope)}
            return self._connection.request(method, path, headers=given, body=body, limit=limit)

        answer = ask()
        if answer.status == 401:
            self._satisfy(answer.headers, scope)
            answer = ask()
        return answer

    @contextmanager
    def _stream(self, path: str, repository: str, headers: dict[str, str]) -> Iterator[http.Stream]:
        """A GET whose body is read as it comes: authorised when asked, redirected when told (without credentials)."""
        scope = f"repository:{repository}:pull"
        for _ in range(2):
            given = {**headers, **self._authorized(scope)}
            with self._connection.stream("GET", path, headers=given, limit=oci.MAX_BLOB) as answer:
                if answer.status not in (401, *_REDIRECTS):
                    yield answer
                    return
                status, found = answer.status, answer.headers
            if status != 401:
                break
            self._satisfy(found, scope)
        else:
            raise registryauth.refusal(self.host, "status 401 to what its token service gave")
        url = self._joined(self._origin + path, found.get("location", ""))
        for _ in range(MAX_REDIRECTS):
            with http.stream(
                "GET",
                url,
                headers=headers,
                pin=registryauth.pin_for(url, self._origin, self._pin),
                timeout=self._timeout,
                limit=oci.MAX_BLOB,
                insecure=self._insecure,
            ) as answer:
                if answer.status not in _REDIRECTS:
                    yield answer
                    return
                url = self._joined(url, answer.headers.get("location", ""))
        raise Unavailable(f"{self.host} redirects in circles")

    def _authorized(self, scope: str) -> dict[str, str]:
        value = self._authorization.get(scope)
        return {"Authorization": value} if value else {}

    def _satisfy(self, headers: Mapping[str, str], scope: str) -> None:
        if scope in self._authorization and self._authorization[scope].startswith("Basic "):
            raise registryauth.refusal(self.host, "credentials that it does not accept")
        challenge = headers.get("www-authenticate", "")
        self._authorization[scope] = registryauth.answer(
            challenge, self.host, self._credentials, scope=scope, insecure=self._insecure, pin=self._pin
        )

    def _demand(self, status: int, wanted: tuple[int, ...], what: str) -> None:
        """Turn a status that was not wanted into the fitting error."""
        if status in wanted:
            return
        problem: CasemateError
        if status == 404:
            problem = Missing(f"{self.host} has no {what}", hint="was it pushed to this registry under this name?")
        elif status in (401, 403):
            problem = registryauth.refusal(self.host, f"status {status} for {what}")
        else:
            problem = Unavailable(f"{self.host} answers {status} for {what}")
        raise problem

    def _place(self, headers: Mapping[str, str]) -> str:
        """Where an upload goes on; another origin than the registry's own is refused."""
        url = urlsplit(self._joined(self._origin, headers.get("location", "")))
        if url.netloc != self.host or not url.path.startswith("/"):
            found = f"at {(url.netloc + url.path)[:120]!r}"
            raise _lie("registry.upload", f"an upload at {self.host}", found, self.host)
        return url.path + (f"?{url.query}" if url.query else "")

    def _next_page(self, link: str) -> str | None:
        """The path in ``Link: </v2/…>; rel="next"`` (RFC 8288), on this registry only."""
        if 'rel="next"' not in link or not link.startswith("<"):
            return None
        url = urlsplit(self._joined(self._origin, link[1:].partition(">")[0]))
        return url.path + (f"?{url.query}" if url.query else "") if url.netloc == self.host else None

    def _joined(self, base: str, location: str) -> str:
        """An absolute URL from a header of the registry."""
        try:
            return urlsplit(urljoin(base, location)).geturl()
        except ValueError as error:
            raise Unavailable(f"{self.host} points to {location[:120]!r}, which is no URL") from error


def _lie(rule: str, expected: str, found: str, host: str) -> Refused:
    return Refused.because(rule, expected=expected, found=found, hint=f"{host} departs from what its manifest promises")


def _pieces(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """(piece, is the last) of at most `PIECE` bytes; an empty blob is one empty piece."""
    held = bytearray()
    for chunk in chunks:
        if held and len(held) + len(chunk) > PIECE:
            yield bytes(held), False
            held.clear()
        held += chunk
    yield bytes(held), True
