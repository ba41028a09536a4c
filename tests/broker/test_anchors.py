"""Anchors at the broker: what the rooms take for a root, in the form that they read, and nothing else."""

from datetime import UTC, datetime

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from tests.broker.test_hardware import OnHardware, app_with_key

from casemate.broker import questions
from casemate.crypto import jwk
from casemate.errors import Refused, Unusable
from casemate.schema.endorsements import PRODUCTION, Anchor, Endorsements
from casemate.schema.reference import ReferenceValues
from casemate.schema.request import Request
from casemate.tee import anchoring, room
from casemate.testing import csv, pki
from casemate.testing.broker import rules
from casemate.testing.cca import FakeRealm
from casemate.testing.nvidia import FakeGpu
from casemate.wire.encoding import b64


def root(service, **changes):
    plain = Anchor(certificate=service.vendor.certificate, platform_class=PRODUCTION)
    return msgspec.structs.replace(plain, **changes)


def test_a_realm_gets_its_key_once_its_platforms_bare_key_is_an_anchor(service):
    """Arm CCA has no certificates: the platform's key (CPAK) itself is what the relying party believes."""
    realm = FakeRealm(now=datetime.now(UTC))
    (anchor,) = realm.endorsements.anchors
    rim = realm.collect(Request(report_data=b"r" * 48, initdata_digest=b"i" * 32))
    shown = room("cca").verify(rim, realm.endorsements, Request(report_data=b"r" * 48), realm.now).measurement
    service.admin.add_reference(ReferenceValues(name="realm", tee="cca", values={"rim": shown["rim"]}))
    app = app_with_key(service)
    guest = OnHardware(service, app.manifest, "cca", lambda request: realm.collect(request).primary)
    assert guest.handshake().status == 401
    service.admin.add_anchor(anchor)
    got = guest.handshake()
    assert got.status == 200, got.body
    assert guest.open(guest.get(app.path)) == b"the key"
    stranger = FakeRealm(now=datetime.now(UTC))
    other = OnHardware(service, app.manifest, "cca", lambda request: stranger.collect(request).primary)
    assert (other.handshake().status, rules(other.handshake())) == (401, ["cca.platform.signature"])


def test_a_trust_anchor_document(service):
    (anchor,) = FakeRealm(key=ec.generate_private_key(ec.SECP256R1())).endorsements.anchors
    key = jwk.from_public_key(load_der_public_key(anchor.certificate))
    document = msgspec.json.encode([{"instance-id": "01" * 33, "pkey": key}])
    for good in (document, anchor.certificate, b64(anchor.certificate).encode()):
        service.admin.add_anchor(msgspec.structs.replace(anchor, certificate=good))
    with pytest.raises(Unusable):  # said now, and not when a guest's evidence is judged
        service.admin.add_anchor(msgspec.structs.replace(anchor, certificate=document.replace(b"01010101", b"zz")))


def test_the_root_of_nvidias_manifests(service):
    """An own root of manifests counts for manifests, the devices' root does not."""
    gpu = FakeGpu(now=pki.NOW)
    evidence, request = gpu.collect(Request(report_data=b"n" * 32)), Request(report_data=b"n" * 32)
    device, manifests = gpu.endorsements.anchors

    def judged():
        given = questions.anchored(service.broker, Endorsements(collateral=gpu.endorsements.collateral))
        return room("nvidia").verify(evidence, given, request, pki.NOW)

    service.admin.add_anchor(device)
    with pytest.raises(Refused) as caught:
        judged()
    assert "nvidia.rim.chain" in [f.rule for f in caught.value.findings if not f.ok]
    service.admin.add_anchor(manifests)
    assert all(f.ok for f in judged().checks)


def test_an_hrk(service):
    made = csv.FakeHygon()
    service.admin.add_anchor(made.endorsements.anchors[0])
    given = questions.anchored(service.broker).anchors_for("csv")
    assert [one.certificate for one in given] == [made.endorsements.anchors[0].certificate]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tees": ()}, "at least one"),
        ({"tees": ("no-such",)}, "nvidia-rim"),
        ({"certificate": b""}, "neither"),
        ({"certificate": b"not DER"}, "neither"),
        ({"tees": ("csv",)}, "no X.509"),  # its roots are an HRK, which the room would stumble over at every guest
        ({"tees": ("snp", "csv")}, "no X.509"),
        ({"certificate": FakeRealm().endorsements.anchors[0].certificate, "tees": ("snp",)}, "neither"),
        ({"certificate": FakeRealm().endorsements.anchors[0].certificate, "tees": ("cca", "tpm")}, "neither"),
        ({"certificate": csv.FakeHygon().endorsements.anchors[0].certificate, "tees": ("cca",)}, "neither"),
        ({"certificate": b"[{}]", "tees": ("cca",)}, "neither"),
    ],
)
def test_what_no_room_would_read(service, changes, said):
    with pytest.raises(Unusable, match=said):
        service.admin.add_anchor(root(service, **changes))


def test_a_certificate_may_vouch_for_what_a_command_lets_it():
    assert {"tpm", "snp", "tdx", "cca", "se", "nvidia", "nvidia-rim"} <= set(anchoring.vouched())
    assert "csv" not in anchoring.vouched()
