"""What a session asks of a TEE: for most a nonce, for some a request that its asker alone can judge the answer to.

A room whose question is its own has a module `challenge` with `HASH`, `question(case, endorsements, now)` and
`endorsements(case, nonce, state)`. Nothing is kept at the broker: `state` travels sealed with the session.

Standard: coco-kbs 0.4.0. The challenge's nonce is compared as a string; runtime data is hashed with SHA-384 unless the
challenge says `selected-hash-algorithm`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from casemate.schema.endorsements import Endorsements
from casemate.tee import ROOMS
from casemate.tee.files import Case

DEFAULT_HASH = "sha384"


@dataclass(frozen=True)
class Question:
    """The nonce as it is sent, and what only the asker keeps until the answer comes."""

    nonce: str
    state: dict[str, bytes] = field(default_factory=dict, repr=False)


def hash_name(tee: str) -> str:
    """The hash of runtime data that this TEE's evidence binds."""
    module = _module(tee)
    return DEFAULT_HASH if module is None else str(module.HASH)


def is_own(tee: str) -> bool:
    """Whether the TEE's question is more than a nonce."""
    return _module(tee) is not None


def question(tee: str, case: Case, endorsements: Endorsements, now: datetime) -> Question:
    """The question of a room that has its own, made from the operator's papers; `Unusable` when some are missing."""
    found: Question = _module(tee).question(case, endorsements, now)
    return found


def endorsed(tee: str, case: Case, gathered: Endorsements, question: Question) -> Endorsements:
    """`gathered` with what judging the answer to `question` needs; unchanged for a TEE that is asked a nonce."""
    module = _module(tee)
    if module is None:
        return gathered
    found: Endorsements = module.endorsements(case, gathered, question)
    return found


@cache
def _module(tee: str) -> Any:
    name = f"{ROOMS[tee]}.challenge" if tee in ROOMS else ""
    return import_module(name) if name and find_spec(name) else None
