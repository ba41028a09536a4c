"""What the relying party itself gives to be believed: roots, platforms' keys, keys of its own requests; by files.

Nothing that lies beside evidence can do that. A certificate counts as a root for all that certificates may vouch for, a
public key as that of the attester; what else there is, the rooms take up (`casemate.tee.anchoring`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from casemate.crypto import chain
from casemate.errors import Unusable
from casemate.schema.endorsements import DEVELOPMENT, Anchor, Endorsements
from casemate.tee import ROOMS, anchoring
from casemate.tee.anchoring import Given, hooks
from casemate.tee.files import Case, File, sort


@dataclass(frozen=True)
class Own:
    """The relying party's files, sorted, and the class of platforms that they may vouch for."""

    case: Case = field(default_factory=lambda: Case(()))
    platform_class: str = DEVELOPMENT

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """The certificates, as roots for every TEE."""
        tees = anchoring.vouched()
        return tuple(
            Anchor(certificate=der, name=f"{chain.load(der).subject} (--anchor)", tees=tees,
                   platform_class=self.platform_class)
            for der in self.case.certificates
        )  # fmt: skip


def read(files: Sequence[File], platform_class: str = DEVELOPMENT) -> Own:
    """The files' certificates, keys and papers; `Unusable` for one that holds nothing to believe."""
    for file in files:
        one = sort([file])
        for der in one.certificates:
            chain.load(der, file.name)
        if not (one.certificates or one.keys) and not any(_takes(hook, one) for hook in hooks(ROOMS)):
            hint = "--anchor takes certificates and public keys in PEM or DER, and papers that a TEE's page names"
            raise Unusable(f"{file.name}: no certificate or public key", hint=hint)
    return Own(sort(files), platform_class)


def endorse(tees: Sequence[str], beside: Endorsements, own: Own, keys: Sequence[bytes] = ()) -> Endorsements:
    """`beside` with what the relying party gave, for the rooms of `tees` (the primary's first)."""
    case = msgspec.structs.replace(own.case, keys=(*own.case.keys, *keys))
    plain = case.keys if not list(hooks(tees[:1])) else ()  # a room with a hook takes keys by it
    given = {f"{tees[0]}.key.given.{number}": key for number, key in enumerate(plain)}
    found = msgspec.structs.replace(
        beside, anchors=(*beside.anchors, *own.anchors), collateral={**beside.collateral, **given}
    )
    for hook in hooks(tees):
        found = hook(case, own.platform_class, found) or found
    return found


def _takes(hook: Given, case: Case) -> bool:
    return hook(case, DEVELOPMENT, Endorsements()) is not None
