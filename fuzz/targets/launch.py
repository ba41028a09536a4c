"""What a launch is made of: manifests, initdata, event logs, kernels, firmware."""

from __future__ import annotations

from collections.abc import Iterable

from fuzz.target import One, target


def _manifest() -> Iterable[bytes]:
    from casemate.schema import manifest as manifests
    from casemate.testing.manifests import document

    yield manifests.from_builtins(document()).canonical()


@target("manifest", _manifest)
def manifest() -> One:
    """A manifest's JSON."""
    from casemate.schema import manifest as manifests

    return manifests.parse


def _initdata() -> Iterable[bytes]:
    from casemate.boot import initdata
    from casemate.schema import manifest as manifests
    from casemate.testing.manifests import document

    yield initdata.document(manifests.from_builtins(document()))


@target("initdata", _initdata)
def initdata() -> One:
    """The initdata document."""
    from casemate.boot import initdata

    return initdata.parse


def _disk() -> Iterable[bytes]:
    from casemate.boot import initdata

    yield from (initdata.disk(text) for text in [*_initdata(), b"", b"x" * 100000])


@target("initdata-disk", _disk)
def disk() -> One:
    """The disk that carries it."""
    from casemate.boot import initdata

    return initdata.parse_disk


def _log() -> Iterable[bytes]:
    from casemate.testing import eventlog as writer
    from casemate.testing.tdx import ccel

    yield writer.write(writer.direct_boot(b"firmware", b"kernel", "console=ttyS0", b"initrd"))
    yield ccel()


@target("eventlog", _log, longest=65536)
def eventlog() -> One:
    """TPM event logs: parsed, replayed, looked through."""
    from casemate.boot import eventlog, logfacts

    def one(data: bytes) -> None:
        log = eventlog.parse(data, padded=True)
        for algorithm in log.algorithms:
            if algorithm in eventlog.SIZES:
                logfacts.facts(log, algorithm)
        eventlog.replay(log, log.algorithms[0], {})

    return one


def _ccel() -> Iterable[bytes]:
    from casemate.testing.tdx import ccel

    yield ccel()


@target("ccel", _ccel, longest=65536)
def ccel() -> One:
    """CC event logs: parsed, replayed to RTMRs, told as claims."""
    from casemate.boot import ccel, eventlog

    def one(data: bytes) -> None:
        log = eventlog.parse(data, padded=True)
        ccel.claims(log)
        eventlog.replay(log, "sha384")

    return one
