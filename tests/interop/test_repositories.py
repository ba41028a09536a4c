"""Resources without an app, as CoCo's tools store them: in a repository that the settings give to a tenant."""

import base64

import pytest
from tests.interop.conftest import client, start, with_key

ALLOW = 'package policy\nimport rego.v1\ndefault allow := false\nallow if data.plugin == "resource"\n'
PATH = "default/key/1"


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    made = start(tmp_path_factory.mktemp("repos"), repos={"default": "lab", "Odd_Name": "lab"})
    yield made
    made.stop()


def admin(service, method, path, body=None):
    headers = {"Authorization": f"Bearer {service.admin.token()}"}
    return client(service).call(method, f"/kbs/v0/{path}", body, headers)


def policy(service, text):
    body = {"policy": base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()}
    assert admin(service, "POST", "resource-policy", body).status == 200


def test_a_resource_is_stored_opened_by_policy_alone_and_deleted(mapped):
    guest = client(mapped)
    assert guest.handshake().status == 200
    assert guest.get(PATH).status == 403  # before missing
    for value in (b"one", b"two"):
        assert admin(mapped, "POST", f"resource/{PATH}", value).status == 200
    assert guest.get(PATH).status == 403  # no policy, no key
    policy(mapped, ALLOW)
    assert guest.opened(guest.get(PATH)) == b"two"
    policy(mapped, ALLOW.replace("resource", "other"))
    assert guest.get(PATH).status == 403
    policy(mapped, ALLOW)
    assert guest.get("default/key/none").status in (403, 404)
    assert admin(mapped, "DELETE", f"resource/{PATH}").status == 200
    assert guest.get(PATH).status in (403, 404, 410)


def test_names_that_are_no_labels(mapped):
    policy(mapped, ALLOW)
    assert admin(mapped, "POST", "resource/Odd_Name/a/b", b"x").status == 200
    guest = client(mapped)
    guest.handshake()
    assert guest.opened(guest.get("Odd_Name/a/b")) == b"x"


def test_a_guest_with_a_manifest_gets_only_its_apps_own(mapped):
    policy(mapped, ALLOW)
    admin(mapped, "POST", "resource/default/key/2", b"x")
    _, guest = with_key(mapped)
    assert guest.handshake().status == 200
    assert guest.get("default/key/2").status == 403


def test_other_repositories_take_nothing_without_an_app(mapped):
    assert admin(mapped, "POST", "resource/elsewhere/key/1", b"x").status in (403, 404)
