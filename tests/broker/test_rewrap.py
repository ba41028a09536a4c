"""The master key changes while guests read: from a file into a token, stopped half-way, on both stores."""

import contextlib
import shutil
import threading

import pytest

from casemate.broker import rewrap
from casemate.broker.settings import FILE, load
from casemate.drivers.secretsclient import Secrets
from casemate.errors import Refused, Unusable
from casemate.testing import broker as brokers
from casemate.testing import postgres, softhsm
from casemate.testing.broker import Guest


@pytest.fixture(scope="module")
def token():
    pytest.importorskip("pkcs11")
    try:
        softhsm.home()
        softhsm.token("store")
    except Unusable as error:
        pytest.skip(str(error))
    softhsm.key("store", b"\x0a")
    return "store"


@pytest.fixture(params=["sqlite", "postgresql"])
def alone(request, tmp_path):
    with contextlib.ExitStack() as stack:
        options = {}
        if request.param == "postgresql":
            try:
                options["store"] = stack.enter_context(postgres.server())
            except Unusable as error:
                pytest.skip(str(error))
        made = brokers.start(tmp_path, **options)
        stack.callback(made.stop)
        made.trust()
        yield made


def name_masters(alone, *tables):
    path = alone.broker.settings.folder / FILE
    kept = path.read_text().partition("[[masters]]")[0]
    path.write_text(kept + "".join(f"\n[[masters]]\n{table}\n" for table in tables))


def in_token(token):
    home = softhsm.home()
    return (
        f'kind = "pkcs11"\nmodule = "{softhsm.module()}"\ntoken = "{token}"\nkey_id = "0a"\npin_file = "{home / "pin"}"'
    )


IN_FILE = 'kind = "file"'


def test_from_a_file_into_a_token_under_readers(alone, token):
    admin, app = Secrets(alone.url, alone.pin, alone.admin_key), alone.found()
    for number in range(30):
        admin.put(app.app_id, f"kbs:///{app.path}", b"value %d" % number)
    guest = Guest(alone, app.manifest)
    guest.handshake()
    before = {m["kind"]: m["values"] for m in admin.masters()["masters"]}
    assert before["file"] >= 30

    name_masters(alone, in_token(token), IN_FILE)
    stop, failures = threading.Event(), []

    def read():
        while not stop.is_set():
            got = guest.get(app.path)
            if got.status != 200 or not guest.open(got).startswith(b"value"):
                failures.append(got.status)

    reader = threading.Thread(target=read)
    reader.start()
    steps = admin.rewrap(limit=7)
    first = next(steps)
    assert first["rewrapped"] == 7
    half = {m["kind"]: m["values"] for m in admin.masters()["masters"]}
    assert half["pkcs11"] == 7
    done = sum(one["rewrapped"] for one in admin.rewrap(limit=7))  # begun anew, as after a crash
    stop.set()
    reader.join()
    assert not failures
    assert done == before["file"] - 7
    assert {m["kind"]: m["values"] for m in admin.masters()["masters"]} == {"pkcs11": before["file"], "file": 0}
    assert sum(one["rewrapped"] for one in admin.rewrap()) == 0

    name_masters(alone, in_token(token))  # the file is not needed any more
    settings = load(alone.broker.settings.folder)
    shutil.move(settings.folder / "master.key", settings.folder / "old.key")
    from casemate.broker.assemble import assemble

    again = assemble(settings)
    assert [key.kind for key in again.vault.masters] == ["pkcs11"]
    assert again.deriver.root == alone.broker.deriver.root
    again.close()


def test_a_value_that_cannot_be_opened_is_named_and_stops_nothing(alone, tmp_path):
    from sqlalchemy import update

    from casemate.drivers import keyfiles
    from casemate.drivers.store.tables import resource_versions as t

    admin, app = Secrets(alone.url, alone.pin, alone.admin_key), alone.found()
    for _ in range(3):
        admin.put(app.app_id, f"kbs:///{app.path}", b"value")
    with alone.broker.store.write() as tx:
        sealed = alone.broker.vault.head + b"\x00\x3c" + bytes(100)
        tx.execute(update(t).where(t.c.path == app.path, t.c.version == 2).values(sealed=sealed))
    keyfiles.write(alone.broker.settings.folder / "second.key", b"2" * 32)
    name_masters(alone, 'kind = "file"\npath = "second.key"', IN_FILE)
    steps = list(admin.rewrap(limit=2))
    assert [failure["where"] for one in steps for failure in one["failed"]] == [f"resource_versions {app.path} 2"]
    masters = admin.masters()["masters"]
    assert masters[1]["values"] == 1


def test_settings_that_cannot_be_used_are_told_and_change_nothing(alone):
    admin, app = Secrets(alone.url, alone.pin, alone.admin_key), alone.found()
    name_masters(alone, 'kind = "file"\npath = "missing.key"')
    with pytest.raises(Unusable):
        list(admin.rewrap())
    assert admin.put(app.app_id, f"kbs:///{app.path}", b"value") == 1


@pytest.mark.parametrize("after", ["x", "[]", '["resources", "a"]', '["keys"]', '["keys", "a", "b"]', '["keys", null]'])
def test_places_that_are_none(alone, after):
    with pytest.raises((Unusable, Refused)):
        Secrets(alone.url, alone.pin, alone.admin_key)._json("POST", "/master/rewrap", {"after": after, "limit": 1})


def test_an_act_for_the_log(alone):
    assert rewrap.step(alone.broker, "", 10, who="local")["rewrapped"] == 0
