"""The library's front door."""

from __future__ import annotations

import subprocess
import sys

import pytest

import casemate
from casemate.errors import Unusable
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.testing.snp import FakeChip


def test_verify_goes_to_the_room_of_the_tee():
    chip, asked = FakeChip(), Request(report_data=b"nonce")
    claims = casemate.verify(chip.collect(asked), chip.endorsements, asked, chip.now)
    assert (claims.tee, claims.fresh) == ("snp", True)
    with pytest.raises(Unusable, match="not known"):
        casemate.verify(Evidence(tee="other", primary={}), Endorsements(), asked, chip.now)


def test_importing_the_package_alone_imports_nothing_heavy():
    heavy = "('cryptography', 'msgspec', 'casemate.')"
    code = f"import sys, casemate; print(sorted(m for m in sys.modules if m.startswith({heavy})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("room", ["snp", "tdx"])
def test_rooms_that_a_guest_imports_leave_cryptography_alone(room):
    """A guest imports them to collect; X.509 would cost it a third of a second."""
    code = f"import sys, casemate.tee.{room}; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
