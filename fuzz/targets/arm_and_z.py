"""Arm CCA tokens and what IBM Secure Execution sends and answers."""

from __future__ import annotations

from collections.abc import Iterable

from fuzz.target import One, target


def _tokens() -> Iterable[bytes]:
    from casemate.testing.cca import YEARS, FakeRealm

    for profile in YEARS:
        for tag in (399, 907):
            yield FakeRealm(profile=profile, tag=tag).token(b"challenge", b"initdata")


@target("cca-token", _tokens)
def cca_token() -> One:
    """Arm CCA attestation tokens in both collections."""
    from casemate.tee.cca import report

    return report.parse


def _anchors() -> Iterable[bytes]:
    key = b'{"kty": "EC", "crv": "P-256", "x": "%s", "y": "%s"}' % (b"A" * 43, b"A" * 43)
    yield b'[{"instance-id": "%s", "implementation-id": "%s", "pkey": %s}]' % (b"01" * 33, b"00" * 32, key)


@target("cca-trust-anchors", _anchors)
def cca_trust_anchors() -> One:
    """The JSON of platform keys."""
    from casemate.tee.cca import keys

    return keys.trust_anchors


def _challenges() -> Iterable[bytes]:
    from casemate.testing.se import FakeMachine

    yield FakeMachine().asked.challenge


@target("se-challenge", _challenges)
def se_challenge() -> One:
    """The JSON of an SE request, with the control block in it."""
    from casemate.tee.se import arcb, report

    return lambda data: arcb.parse(report.parse_challenge(data).blob)


def _blocks() -> Iterable[bytes]:
    from casemate.tee.se import report

    for challenge in _challenges():
        yield report.parse_challenge(challenge).blob


@target("se-request", _blocks)
def se_request() -> One:
    """Attestation request control blocks."""
    from casemate.tee.se import arcb

    return arcb.parse


def _exchanges() -> Iterable[bytes]:
    entries = b"".join(v.to_bytes(4, "big") for v in (16, 64, 64, 80, 0, 0, 4, 144, 16, 148))
    yield b"pvattest" + (0x100).to_bytes(4, "big") + (164).to_bytes(4, "big") + bytes(8) + entries + bytes(100)


@target("se-exchange", _exchanges)
def se_exchange() -> One:
    """Exchange files of pvattest."""
    from casemate.tee.se import exchange

    return exchange.parse


def _headers() -> Iterable[bytes]:
    yield (b"IBMSecEx" + (0x100).to_bytes(4, "big") + (0x1B8).to_bytes(4, "big")).ljust(0x1B8, b"\1")


@target("se-image", _headers)
def se_image() -> One:
    """The header of an SE image."""
    from casemate.tee.se.measure import image_tags

    return image_tags
