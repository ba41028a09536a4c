"""The vectors of the wire reference's Appendix A: our code and the outside client agree with it and with each other."""

import hashlib
import json

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.interop import rcar_client

from casemate.boot import ccel, eventlog
from casemate.broker import hearing
from casemate.crypto import jwe, jwk
from casemate.image import packets
from casemate.release import session as rcar
from casemate.tee import asking, composite
from casemate.testing.tdx import ccel as synthetic_log
from casemate.wire import jcs
from casemate.wire.encoding import b64

SCALAR = 0x00F79470AF24F054CDE1AEDCCD1B381FA688C5D4571D93C502930BED27F73CA0
KEY = rcar_client.EcKey(private=ec.derive_private_key(SCALAR, ec.SECP256R1()))
NONCE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PRIMARY = (
    '{"additional-evidence":"","nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","tee-pubkey":{"alg":"ECDH-ES+A256'
    'KW","crv":"P-256","kty":"EC","x":"FvCPUXLoAJdGS7r0YU1mnMiD2nzn7OjQP3erVPWcoGA","y":"0b31ECFNLbSgcm1Jgks9gp40jbJbru'
    'tK33Uu7pjdvvs"}}'
)
SHA384 = "5464382c0169bfacd7b5380146bed959857ed95f56bd3863815f4f2b0060b5d89b5fbed6314dc42eb4e0039a38c7a9a7"
SHA512 = (
    "7f6d980ec93d400732b25b12bbb63dae789044d95c1e4221e383b30789ae26b7"
    "cefef0e669e1989068d46c0f7a64e832c773c4998f5f233fdefa57608facbb18"
)
DEVICE = "4491cbe7a0251106a8cb918e598638b3351b1319e402260c06a8a9ae2b8b5dc6d66a28f381d35a08d0e6ac6fb8c147e3"
SEALED = {
    "protected": "eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIsIngi"
    "OiJtdzVtT1pxYnlLLWowUGd3ME9QN2VXMUJCWXhVcjZhN21TWmYwVWxQT3Q0IiwieSI6IjBfekVhNTVOZ0ZLa3hHOFJiSUxqODlLRmdYUVM1RUdIMm"
    "dnazFfV1Q4d3cifX0",
    "encrypted_key": "kzmaLzxIOkgOUFLfCj1JScQSfacxbf93S_R5FK87MvGygSJu9YcVJg",
    "iv": "u7u7u7u7u7u7u7u7",
    "ciphertext": "onQnyhk9ObdT-w",
    "tag": "Iy5AhU2iaWKKLl2jtDK39g",
}
AAEL = bytes.fromhex(
    "0400000006000000010000000c00e4d2b7722f180c4a88ee399b53aaddf4371dabf05f673a0e322dd46d89d100b6142e908676a42b19ed5bef"
    "dac1e231d2470000004c4541413f0000006769746875622e636f6d2f636f6e666964656e7469616c2d636f6e7461696e6572732050756c6c49"
    "6d616765207b22696d616765223a22616c70696e65227d"
)
INITDATA = (
    'algorithm = "sha384"\nversion = "0.1.0"\n\n[data]\n"aa.toml" = \'\'\'\n'
    "[token_configs.kbs]\nurl = \"http://127.0.0.1:8080\"\n'''\n"
)


def test_1_primary_evidence_binds_the_canonical_json():
    bound = {"nonce": NONCE, "tee-pubkey": KEY.jwk, "additional-evidence": ""}
    assert jcs.canonical(bound).decode() == PRIMARY
    assert jwk.from_public_key(KEY.private.public_key()) == KEY.jwk
    assert rcar.report_data(NONCE, KEY.jwk).hex() == SHA384
    assert rcar_client.runtime_digest(NONCE, KEY.jwk).hex() == SHA384


def test_1_secure_execution_binds_sha512():
    assert asking.hash_name("se") == "sha512"
    assert hashlib.sha512(PRIMARY.encode()).hexdigest() == SHA512
    assert rcar_client.runtime_digest(NONCE, KEY.jwk, name="sha512").hex() == SHA512


def test_2_a_device_binds_no_additional_evidence():
    assert composite.device_request(NONCE, KEY.jwk).report_data.hex() == DEVICE
    assert rcar_client.device_digest(NONCE, KEY.jwk).hex() == DEVICE


def test_3_the_jwe_opens_on_both_sides():
    assert jwe.open_(SEALED, KEY.private) == b"hello coco"
    assert rcar_client.open_jwe(SEALED, KEY) == b"hello coco"


def test_4_a_runtime_event_of_a_guest():
    log = synthetic_log()
    header = log[: 32 + int.from_bytes(log[28:32], "little")]
    parsed = eventlog.parse(header + AAEL + b"\xff" * 64, padded=True)
    assert eventlog.replay(parsed, "sha384")[4].hex() == (
        "8f3394c63565e00df5ebc849faaf04628f68c24941819fc93560fc6dc590c999904e28ab519beead7c788fff14a41c6b"
    )
    (event,) = ccel.claims(parsed)
    assert event["digest_matches_event"]
    assert event["details"]["data"] == {
        "domain": "github.com/confidential-containers",
        "operation": "PullImage",
        "content": {"image": "alpine"},
    }


def test_5_initdata_is_hashed_as_it_came():
    document = INITDATA.encode()
    assert len(document) == 117
    assert hearing.initdata_digest(document).hex() == (
        "e6abf188a5ea43a380637ad2cd26cf490551371712a61e4a23279c2aef9dfc9e593855d01130188daa603a61767ac549"
    )
    sha256 = hashlib.sha256(document).digest()
    assert sha256.hex() == "f8a887244698776d0fc19d81b7ae3435fbd32c6c15f5486c1c1d4ebbbba1704b"
    pcr8 = "2186902ace48f3ef0a615772573298b16b5fef7ac5d21e24ff8616fcfbe2479c"
    assert hashlib.sha256(bytes(32) + sha256).hexdigest() == pcr8


def test_6_an_annotation_packet():
    packet = {
        "kid": "kbs:///default/key/1",
        "wrapped_data": "dZ7Gp9hH5sQqkotNOlFwyZ4XyQ2AW0BzyuDDN4l3",  # the reference prints H5SQ, which no key opens
        "iv": "AAAAAAAAAAAAAAAA",
        "wrap_type": "A256GCM",
    }
    key = bytes(range(32))
    assert b64(AESGCM(key).encrypt(bytes(12), b'{"symkey":"x"}', None)) == packet["wrapped_data"]
    assert packets.unwrap(packets.parse(json.dumps(packet).encode()), key) == b'{"symkey":"x"}'
