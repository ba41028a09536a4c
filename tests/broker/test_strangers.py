"""What a guest without a manifest may cost: of reading its initdata, of the disk, of memory."""

import base64
import os
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from casemate.broker import hearing, policies, structure
from casemate.drivers.store import policies as stored
from casemate.drivers.store.tables_policy import attestations as table
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest

HEAD = 'algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n'
PIECES = ['"', '"""', "'", "'''", "\\", '\\"', "#", "\n", "a", "b", "=", "[", "]", "[1,", "2]", "{", "}", ",", "1", " ",
          ".", "a=", "b='", "c.d=", "x = '''", 'y = """', "\\\\", "é"]  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = brokers.start(tmp_path_factory.mktemp("strangers"))
    made.trust()
    yield made
    made.stop()


def attested(service, text):
    return Guest(service, text=HEAD + text).handshake()


def noise(size):
    """As many characters that don't pack well."""
    return base64.b64encode(os.urandom(size)).decode()[:size]


def rows(service):
    with service.broker.store.read() as tx:
        query = select(table.c.app_id, func.length(table.c.inputs), func.length(table.c.claims))
        return [tuple(row) for row in tx.execute(query)]


def test_what_a_stranger_says_is_kept_short(service):
    assert attested(service, f'x = "{noise(200_000)}"\n').status == 200
    ((app, inputs, claims),) = [row for row in rows(service) if row[0] is None]
    assert (app, inputs) == (None, len(stored._packed(b"[]")))
    assert claims < 16 << 10


@pytest.mark.parametrize(
    "text",
    [
        f'x = "{"a" * hearing.MAX_CLAIMED}"\n',
        f'x = "{"a" * hearing.MAX_CLAIMED} casemate.json"\n',
        "".join(f"k{n} = 1\n" for n in range(5000)),
        "x = [" + "1," * 20_000 + "]\n",
        "x = {" + ",".join(f"k{n}=1" for n in range(6000)) + "}\n",
        "".join(f"[data.{'a.' * 40}k{n}]\n" for n in range(400)),
    ],
)
def test_documents_that_cost_much_are_refused(service, text):
    got = attested(service, text)
    assert (got.status, got.json()["reasons"][0]["rule"]) == (401, "tpm.evidence")
    assert "initdata: at most" in got.json()["reasons"][0]["found"]


def test_policies_as_cocos_guests_bring_them_are_read(service):
    policy = "package agent_policy\n" + "".join(f'allow_{n} if {{ input.x[{n}] == "y", 1 }}\n' for n in range(3000))
    got = attested(service, f"\"policy.rego\" = '''\n{policy}'''\n\"aa.toml\" = '''\n[a]\nb = 1\n'''\n")
    assert got.status == 200


def test_a_large_manifest_is_read(service):
    app = service.found(resources=[f"kbs:///repo/key/{n}" for n in range(2000)])
    assert Guest(service, app.manifest).handshake().status == 200


def test_strangers_push_out_strangers_alone(service, monkeypatch):
    app = service.found()
    guest = Guest(service, app.manifest)
    for _ in range(3):
        assert guest.handshake().status == 200
    for _ in range(4):
        assert attested(service, f'x = "{noise(500)}"\n').status == 200
    apps = sum(1 for row in rows(service) if row[0] == app.app_id)
    monkeypatch.setattr(stored, "STRANGE_BYTES", 2 * max(row[1] + row[2] for row in rows(service) if row[0] is None))
    monkeypatch.setattr(stored, "KEPT_BYTES", 0)
    policies.sweep(service.broker)
    left = rows(service)
    assert 1 <= sum(1 for row in left if row[0] is None) <= 3  # the newest, though all their sessions last
    assert sum(1 for row in left if row[0] == app.app_id) == apps == 3


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_what_counts_bounds_what_is_parsed(text):
    """Whatever is TOML has at most half as many values as bytes that count."""
    try:
        document = tomllib.loads(text)
    except ValueError:
        structure.size(text.encode())
        return
    assert 2 * _values(document) <= structure.size(text.encode()) + 2


def _values(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(1 + _values(one) for one in inner)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 0),
        ('a = "b, c = [d]"\n', 6),
        ("a = '''x\n[y]\n'''\n", 6),
        ('a = """x""""" # 1, 2\n', 8),
        ('a = "\\"," # "\n', 8),
        ("'a,b' = 1", 5),
        ('a = "' + '\\"' * 500_000, 5),
        ('a = """' + '\\""' * 500_000, 5),
    ],
)
def test_strings_and_comments_count_for_one_byte(text, size):
    assert structure.size(text.encode()) == size
