"""A layer's way from ciphertext to tar, as streams of chunks: nothing of it is ever whole in memory.

Order, and why: `Intake` sees every stored byte first and judges size, digest and HMAC; only then may `tar_chunks` be
read from the same bytes, because a counter-mode plaintext that was not authenticated is the attacker's to choose. The
stream of `tar_chunks` ends with the comparison of the diff-id, so a caller that read it to its end has a checked layer.
Bounds: stored size (the descriptor's), inflated size, and the ratio of both (bombs).
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Iterable, Iterator

import msgspec

from casemate.errors import Finding, Malformed, Refused, Unusable
from casemate.image import manifest as oci
from casemate.image import ocicrypt

CHUNK = 1 << 20


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one layer: `stored` and `inflated` bytes; above `slack` bytes, at most `ratio` out for each one in."""

    stored: int = 4 << 30
    inflated: int = 8 << 30
    ratio: int = 200
    slack: int = 64 << 20


class Intake:
    """Judges a layer's stored bytes: feed them with `update`, then `finish`. `number` names the layer in findings."""

    def __init__(
        self,
        descriptor: oci.Descriptor,
        secret: ocicrypt.LayerSecret | None,
        *,
        number: int = 0,
        limits: Limits | None = None,
    ) -> None:
        self._wanted, self._name = descriptor, f"layer {number}"
        bound = (limits or Limits()).stored
        if descriptor.size > bound:
            raise Refused.because("image.layer.size", expected=f"at most {bound} bytes", found=descriptor.size)
        self._digest, self._size = hashlib.sha256(), 0
        self._mac = secret.mac() if secret else None
        self._public = ocicrypt.public_mac(descriptor) if secret else b""

    def update(self, chunk: bytes) -> None:
        """Take the next stored bytes; more than the descriptor's size is refused at once."""
        self._size += len(chunk)
        if self._size > self._wanted.size:
            raise Refused([self._size_finding(f"more than {self._wanted.size} bytes")])
        self._digest.update(chunk)
        if self._mac:
            self._mac.update(chunk)

    def finish(self) -> None:
        """Refuse, with every failed rule, a layer whose size, digest or HMAC is not as promised."""
        findings = []
        found = "sha256:" + self._digest.hexdigest()
        if self._size != self._wanted.size:
            findings.append(self._size_finding(f"{self._size} bytes"))
        if not hmac.compare_digest(found, self._wanted.digest):
            findings.append(Finding("image.layer.digest", f"{self._name}: {self._wanted.digest}", found, _CHANGED))
        if self._mac and not hmac.compare_digest(self._mac.digest(), self._public):
            findings.append(
                Finding(
                    "image.layer.hmac", f"{self._name}: the HMAC that its public options promise", "another", _CHANGED
                )
            )
        if findings:
            raise Refused(findings)

    def _size_finding(self, found: str) -> Finding:
        return Finding("image.layer.size", f"{self._name}: {self._wanted.size} bytes", found, _CHANGED)


_CHANGED = "the registry, or something on the way, changed the layer: push it again"


def secret_of(descriptor: oci.Descriptor, opened: bytes | None) -> ocicrypt.LayerSecret | None:
    """The layer's key from its unwrapped private options; None for a plain layer."""
    if not oci.layer_kind(descriptor.media_type).encrypted:
        return None
    if opened is None:
        raise Unusable("encrypted layer: its key is missing")
    return ocicrypt.LayerSecret.parse(opened)


def tar_chunks(
    stored: Iterable[bytes],
    descriptor: oci.Descriptor,
    secret: ocicrypt.LayerSecret | None,
    diff_id: str,
    *,
    limits: Limits | None = None,
) -> Iterator[bytes]:
    """The layer's tar from its stored, already judged bytes; the last step compares the diff-id."""
    bounds = limits or Limits()
    plain = decrypt(stored, secret) if secret else iter(stored)
    kind = oci.layer_kind(descriptor.media_type)
    return _diff_checked(inflate(plain, kind.compression, bounds), diff_id)


def decrypt(stored: Iterable[bytes], secret: ocicrypt.LayerSecret) -> Iterator[bytes]:
    """Plaintext of judged ciphertext."""
    cipher = secret.cipher()
    for chunk in stored:
        yield cipher.update(chunk)


def inflate(chunks: Iterable[bytes], compression: str, limits: Limits) -> Iterator[bytes]:
    """Uncompressed bytes, within `limits`; `compression` is none, gzip or zstd."""
    if compression == "none":
        yield from _bounded(((chunk, len(chunk)) for chunk in chunks), limits)
    elif compression == "gzip":
        yield from _bounded(_gunzip(chunks), limits)
    else:
        yield from _bounded(_unzstd(chunks), limits)


def _bounded(pieces: Iterable[tuple[bytes, int]], limits: Limits) -> Iterator[bytes]:
    """Pass on pieces, each told with the stored bytes consumed so far for it, while the totals stay within bounds."""
    out = read = 0
    for piece, consumed in pieces:
        out, read = out + len(piece), read + consumed
        if out > limits.inflated:
            raise Refused.because("image.layer.inflated", expected=f"at most {limits.inflated} bytes", found="more")
        if out > limits.slack and out > read * limits.ratio:
            raise Refused.because(
                "image.layer.ratio",
                expected=f"at most {limits.ratio} bytes for each stored one",
                found="more",
                hint="a layer that inflates this far is a bomb, or nearly empty: store it in another form",
            )
        yield piece


def _gunzip(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Every member of a gzip stream (estargz and pigz write several), in pieces of at most `CHUNK` bytes."""
    member, begun = zlib.decompressobj(wbits=31), False
    for chunk in chunks:
        data, consumed = chunk, len(chunk)
        while data:
            if member.eof:
                member, begun = zlib.decompressobj(wbits=31), False
            try:
                piece = member.decompress(data, CHUNK)
            except zlib.error as error:
                raise Malformed("layer: not a gzip stream") from error
            begun = True
            yield piece, consumed
            consumed = 0
            data = member.unused_data if member.eof else member.unconsumed_tail
        while begun and not member.eof and (piece := _pending(member)):
            yield piece, 0
    if not begun or not member.eof:
        raise Malformed("layer: its gzip stream is cut short")


def _pending(member: zlib._Decompress) -> bytes:
    """Output that zlib holds back after its input was used up."""
    try:
        return member.decompress(b"", CHUNK)
    except zlib.error as error:
        raise Malformed("layer: not a gzip stream") from error


def _unzstd(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Zstandard frames, where this Python can read them (3.14 on)."""
    try:
        from compression import zstd  # type: ignore[import-not-found] # newer than the oldest supported Python
    except ImportError:
        raise Unusable("layer: zstd is not supported by this Python", hint="store the image with gzip layers") from None
    frame, begun = zstd.ZstdDecompressor(), False
    for chunk in chunks:
        data, consumed = chunk, len(chunk)
        while data or (begun and not frame.eof and not frame.needs_input):
            if frame.eof:
                frame = zstd.ZstdDecompressor()
            try:
                piece = frame.decompress(data, CHUNK)
            except zstd.ZstdError as error:
                raise Malformed("layer: not a zstd stream") from error
            begun = True
            yield piece, consumed
            consumed = 0
            data = frame.unused_data if frame.eof else b""
    if not begun or not frame.eof:
        raise Malformed("layer: its zstd stream is cut short")


def _diff_checked(chunks: Iterable[bytes], diff_id: str) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    found = "sha256:" + digest.hexdigest()
    if not hmac.compare_digest(found, diff_id):
        raise Refused.because(
            "image.layer.diff-id",
            expected=diff_id,
            found=found,
            hint="the layer is not the one that the image's configuration names",
        )
