"""What the image commands share: layouts and keys by name, the registry's options, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from casemate.cli import output
from casemate.errors import Unusable

if TYPE_CHECKING:
    from casemate.drivers.registry import Registry
    from casemate.image.layout import Layout
    from casemate.image.manifest import Descriptor

_Command = TypeVar("_Command", bound=Callable[..., Any])


def registry_options(command: _Command) -> _Command:
    """``--plain-http`` and ``--credentials FILE``."""
    command = click.option("--plain-http", is_flag=True, help="The registry speaks plain HTTP (development).")(command)
    return click.option(
        "--credentials",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="File with name:password, or a containers auth.json.",
    )(command)


def connect(host: str, *, plain_http: bool, credentials: Path | None) -> Registry:
    """A client of the registry `host`."""
    from casemate.drivers.registry import Registry
    from casemate.drivers.registryauth import Credentials

    known = Credentials.parse(read(credentials, 64 << 10), host) if credentials else None
    return Registry(host, insecure=plain_http, credentials=known)


def open_layout(name: str) -> tuple[Layout, Descriptor, str]:
    """(layout, the image in it, the image's name) for FOLDER or FOLDER:NAME."""
    from casemate.image.layout import REF_NAME, Layout

    folder, wanted = Path(name), None
    if not folder.exists() and ":" in name:
        before, _, wanted = name.rpartition(":")
        folder = Path(before)
    layout = Layout.open(folder)
    image = layout.image(wanted)
    return layout, image, image.annotation(REF_NAME) or "latest"


@contextmanager
def new_layout(folder: Path) -> Iterator[Layout]:
    """A new layout; removed again if what is made in it fails or is interrupted."""
    from casemate.image.layout import Layout

    made = Layout.create(folder)
    try:
        yield made
    except BaseException:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
        raise


def counted(chunks: Iterable[bytes], what: str) -> Iterator[bytes]:
    """Pass on `chunks`, with a line on stderr for every 64 MiB."""
    done = told_at = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        if done - told_at >= 64 << 20:
            told_at = done
            output.note(f"{what}: {size(done)}")


def is_layout(name: str) -> bool:
    """Whether `name` means a folder here rather than a reference at a registry."""
    return Path(name).exists() or Path(name.rpartition(":")[0] or ".none").is_dir()


def key_pair(text: str) -> tuple[str, bytes]:
    """(URI, 32 bytes) of ``kbs:///repository/type/tag=FILE``."""
    uri, equals, file = text.rpartition("=")
    if not equals:
        raise Unusable(f"{text!r}: URI=FILE is wanted", hint="kbs:///default/image-key/1=key.bin")
    return uri, key_file(Path(file))


def key_file(path: Path) -> bytes:
    """The 32 raw bytes in a file."""
    key = read(path, 33)
    if len(key) != 32:
        hint = f"head -c 32 /dev/urandom > {path}" if path.is_file() else "name a regular file that holds the key"
        raise Unusable(f"{path}: a file of exactly 32 bytes is wanted", hint=hint)
    return key


def read(path: Path, limit: int) -> bytes:
    """At most `limit` bytes of a file."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from error


def whole(path: Path, limit: int) -> bytes:
    """A file of at most `limit` bytes; a longer one (or one without an end) is `Unusable`."""
    data = read(path, limit + 1)
    if len(data) > limit:
        raise Unusable(f"{path}: more than {limit} bytes, which is too long")
    return data


def size(count: int) -> str:
    """A size for people."""
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count / 1024:.1f} KiB"


def told(phase: str, detail: dict[str, object]) -> None:
    """One phase of a pull as a line on stderr."""
    output.note(" ".join([phase, *(f"{name}={value}" for name, value in detail.items())]))
