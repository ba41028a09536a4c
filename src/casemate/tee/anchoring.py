"""What may be an anchor of what: certificates where a TEE's roots are certificates, and what its room takes besides.

`CERTIFICATES` (by default) and `VOUCHED` in a room's `files.py` say what a certificate may vouch for; `given` there
(`Case` of the relying party's files, class, `Endorsements`: the endorsements with what was given, or None) takes up
everything else: bare platform keys and trust-anchor documents (`cca`), an HRK (`csv`). What a command takes by
`--anchor` and what a broker records are judged by the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import import_module
from types import ModuleType

import msgspec

from casemate.crypto import chain
from casemate.errors import Malformed
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.tee import ROOMS
from casemate.tee.files import Case, File, sort

Given = Callable[[Case, str, Endorsements], Endorsements | None]


def checked(anchor: Anchor) -> Anchor:
    """The anchor as the rooms of all its TEEs read it; `Malformed` where one of them would not."""
    known = {*vouched(), *ROOMS}
    if not anchor.tees or not known.issuperset(anchor.tees):
        raise Malformed("tees: at least one is wanted, known are " + ", ".join(sorted(known)))
    try:
        chain.load(anchor.certificate)
    except Malformed:
        return _own(anchor)
    strangers = [tee for tee in anchor.tees if tee not in vouched()]
    if strangers:
        raise Malformed(f"certificate: a root of {', '.join(strangers)} is no X.509 certificate")
    return anchor


def vouched() -> tuple[str, ...]:
    """What a certificate may vouch for: every TEE whose roots are certificates, and what rooms name beside it."""
    rooms = [tee for tee, module in zip(ROOMS, _files(), strict=True) if getattr(module, "CERTIFICATES", True)]
    return (*rooms, *(name for module in _files() for name in getattr(module, "VOUCHED", ())))


def hooks(tees: Iterable[str]) -> Iterator[Given]:
    """How the rooms of these TEEs take up what a relying party gives beside certificates."""
    wanted = set(tees)
    for tee, module in zip(ROOMS, _files(), strict=True):
        hook: Given | None = getattr(module, "given", None)
        if tee in wanted and hook is not None:
            yield hook


def _own(anchor: Anchor) -> Anchor:
    """An anchor that is no certificate: the same in the form that each of its TEEs' rooms reads."""
    case, forms = sort([File("anchor", anchor.certificate)]), set[bytes]()
    for tee in anchor.tees:
        taken = [hook(case, anchor.platform_class, Endorsements()) for hook in hooks((tee,))]
        found = [one.certificate for part in taken if part for one in part.anchors if tee in one.tees]
        if len(found) != 1:
            raise Malformed(f"certificate: neither an X.509 certificate in DER nor another root that {tee} knows")
        forms.update(found)
    if len(forms) != 1:
        raise Malformed("certificate: its TEEs read it as different things; register one anchor for each")
    return msgspec.structs.replace(anchor, certificate=forms.pop())


@cache
def _files() -> tuple[ModuleType, ...]:
    return tuple(import_module(f"{place}.files") for place in ROOMS.values())
