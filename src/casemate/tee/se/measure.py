"""What an SE image shows when it is measured: the tags in its header. Nothing of it is computed, genprotimg did that.

Standard: s390-tools, Secure Execution boot header (version 1). Big-endian.

    header    "IBMSecEx" | version u32 0x100 | size u32 | ... | PLD 64 at 0xe0 | ALD 64 | TLD 64 | ... | tag 16, last
    image     the header's place is in the metadata at 0xc000 ("SeImgLnx", offset u64 behind it), or on a page boundary
"""

from __future__ import annotations

from casemate.errors import Malformed, Unusable
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request
from casemate.tee.se.report import Tags
from casemate.wire.cursor import Cursor

MAGIC, IMAGE_MAGIC = b"IBMSecEx", b"SeImgLnx"
_META, _PAGE, _PAGES, _VERSION, _DIGESTS = 0xC000, 0x1000, 0x15, 0x100, 0xE0
_MAX_HEADER = 0x10000


def machine(launch: Launch) -> Machine:
    """Not possible: Secure Execution needs an IBM Z host."""
    del launch
    raise Unusable("an SE guest cannot be started here", hint="start it on an IBM Z host, verify it here")


def measure(launch: Launch) -> Measurement:
    """The tags of the SE image that is given as the launch's image, or as its kernel."""
    tags = image_tags(launch.image or launch.kernel)
    return Measurement(tee="se", values=values(tags))


def values(tags: Tags) -> dict[str, str]:
    """The registers by which an image is known."""
    return {"tag": tags.tag.hex(), "pld": tags.pld.hex(), "ald": tags.ald.hex(), "tld": tags.tld.hex()}


def request(nonce: bytes, hint: bytes) -> Request:
    """The request that binds `nonce` as user data. `casemate.tee.se.ask` makes what the Ultravisor needs besides."""
    del hint
    return Request(report_data=nonce)


def image_tags(image: bytes) -> Tags:
    """The tags of an SE image, or of its header alone."""
    start = _header(image)
    read = Cursor(image[start : start + _MAX_HEADER], "SE boot header")
    if read.take(8) != MAGIC or read.be32() != _VERSION:
        raise Malformed(f"SE boot header: version {_VERSION:#x} is wanted")
    size = read.be32()
    if size < _DIGESTS + 192 + 16:
        raise Malformed(f"SE boot header: a size of {size}")
    read.take(_DIGESTS - read.offset)
    digests = read.take(192)
    read.take(size - 16 - read.offset)
    return Tags.parse(digests + read.take(16))


def _header(image: bytes) -> int:
    if image[_META : _META + 8] == IMAGE_MAGIC:
        return int.from_bytes(image[_META + 8 : _META + 16], "big")
    for start in range(0, _PAGES * _PAGE, _PAGE):
        if image[start : start + 8] == MAGIC:
            return start
    raise Malformed("no Secure Execution image: it has no boot header")
