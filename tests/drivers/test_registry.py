import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.drivers.registry import Missing, Registry
from casemate.drivers.registryauth import Credentials, answer, pin_for
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.image import manifest as oci
from casemate.testing import registry as registries
from casemate.testing.registry import basic, digest

DATA = bytes(range(256)) * 5000


@pytest.fixture
def server():
    with registries.lying() as running:
        yield running


@pytest.fixture
def client(server):
    waits = []
    with Registry(server.host, insecure=True, timeout=5, sleep=waits.append) as made:
        made.waits = waits
        yield made


def described(data=DATA, size=None):
    return oci.Descriptor(oci.OCI_LAYER, digest(data), len(data) if size is None else size)


def read(client, descriptor=None):
    return b"".join(client.blob("a", descriptor or described()))


def rule(call):
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.findings[0].rule


def test_push_and_pull(client, server):
    assert client.put_blob("a", digest(DATA), len(DATA), [DATA[:1000], DATA[1000:]]) is True
    assert client.put_blob("a", digest(DATA), len(DATA), [DATA]) is False
    assert client.put_blob("a", digest(b""), 0, []) is True
    assert read(client) == DATA
    assert read(client, described(b"")) == b""
    assert client.put_manifest("a", "1", b"{}", oci.OCI_MANIFEST) == digest(b"{}")
    assert client.manifest("a", "1").digest == digest(b"{}")
    assert client.tags("a") == ["1"]


def test_upload_in_pieces(client, server, monkeypatch):
    monkeypatch.setattr("casemate.drivers.registry.PIECE", 300_000)
    assert client.put_blob("a", digest(DATA), len(DATA), (DATA[i : i + 200_000] for i in range(0, len(DATA), 200_000)))
    assert server.blobs[digest(DATA)] == DATA
    ranges = [headers["Content-Range"] for method, _, headers in server.seen if method == "PATCH"]
    assert ranges[0] == "0-199999"
    assert int(ranges[-1].split("-")[1]) == len(DATA) - 1


def test_upload_of_something_else(client, monkeypatch):
    with pytest.raises(Unavailable, match="400"):
        client.put_blob("a", digest(b"x"), 1, [b"y"])
    monkeypatch.setattr("casemate.drivers.registry.PIECE", 2)
    with pytest.raises(Unusable, match="promised"):
        client.put_blob("a", digest(b"xxxx"), 4, [b"xx", b"x"])


def test_upload_elsewhere_is_refused(client, server):
    server.lies["POST"] = lambda h: h.answer(202, headers={"Location": "http://127.0.0.2:1/up"}) or True
    assert rule(lambda: client.put_blob("a", digest(b"x"), 1, [b"x"])) == "registry.upload"


# -- lies about blobs


def lie(server, body, headers=None, status=200):
    server.lies["GET .*/blobs/"] = lambda h: h.answer(status, body, headers) or True


def test_other_bytes(client, server):
    lie(server, DATA[:-1] + b"!")
    assert rule(lambda: read(client)) == "registry.digest"


def test_more_bytes_by_length(client, server):
    lie(server, DATA + b"!")
    assert rule(lambda: read(client)) == "registry.size"


def test_fewer_bytes_by_length(client, server):
    lie(server, DATA[:-1])
    assert rule(lambda: read(client)) == "registry.size"


def test_endless_bytes_without_length(client, server):
    def endless(h):
        h.send_response(200)
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()
        try:
            for _ in range(1000):
                h.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        except OSError:
            pass
        return True

    server.lies["GET .*/blobs/"] = endless
    assert rule(lambda: read(client)) == "registry.size"


def test_early_end_without_length(client, server):
    def short(h):
        h.send_response(200)
        h.send_header("Connection", "close")
        h.end_headers()
        h.wfile.write(DATA[:5000])
        h.close_connection = True
        return True

    server.lies["GET .*/blobs/"] = short
    with pytest.raises((Unavailable, Refused)):
        read(client)
    assert len([1 for method, *_ in server.seen if method == "GET"]) <= 5


def test_another_range(client, server):
    server.blobs[digest(DATA)] = DATA
    server.lies["GET .*/blobs/"] = lambda h: broken(h, 1000) if "Range" not in h.headers else wrong(h)

    def wrong(h):
        h.answer(206, DATA[: len(DATA) - 1000], {"Content-Range": f"bytes 0-{len(DATA)}/{len(DATA)}"})
        return True

    assert rule(lambda: read(client)) == "registry.range"


def broken(h, count):
    """An answer that breaks off after `count` bytes of what its length announces."""
    h.send_response(200)
    h.send_header("Content-Length", str(len(DATA)))
    h.end_headers()
    h.wfile.write(DATA[:count])
    h.wfile.flush()
    h.close_connection = True
    return True


def test_resume_where_it_stopped(client, server):
    server.blobs[digest(DATA)] = DATA
    server.lies["GET .*/blobs/"] = lambda h: "Range" not in h.headers and broken(h, 100_000)
    assert read(client) == DATA
    assert [headers.get("Range") for _, _, headers in server.seen] == [None, f"bytes=100000-{len(DATA) - 1}"]
    assert client.waits == [0.5]


def test_resume_at_a_registry_without_ranges(client, server):
    calls = []

    def first_breaks(h):
        calls.append(1)
        if len(calls) == 1:
            return broken(h, 70_000)
        h.answer(200, DATA)
        return True

    server.lies["GET .*/blobs/"] = first_breaks
    assert read(client) == DATA


def test_retries_are_bounded(client, server):
    server.lies["GET .*/blobs/"] = lambda h: h.answer(503) or True
    with pytest.raises(Unavailable, match="503"):
        read(client)
    assert len(server.seen) == 5
    assert len(client.waits) == 4


def test_a_registry_that_is_down():
    with Registry("127.0.0.1:9", insecure=True, sleep=lambda _: None) as client, pytest.raises(Unavailable):
        client.manifest("a", "1")


def test_missing(client):
    with pytest.raises(Missing):
        client.manifest("a", "1")
    with pytest.raises(Missing):
        read(client)


def test_too_big_for_a_small_blob(client):
    with pytest.raises(Malformed):
        client.small("a", described(size=1 << 30), limit=1 << 20)


# -- lies about manifests


def test_another_manifest(client, server):
    server.lies["GET .*/manifests/"] = lambda h: h.answer(200, b'{"other":1}') or True
    assert rule(lambda: client.manifest("a", digest(b"{}"))) == "image.manifest.digest"


def test_huge_manifest(client, server):
    server.lies["GET .*/manifests/"] = lambda h: h.answer(200, b" " * (5 << 20)) or True
    with pytest.raises(Unavailable):
        client.manifest("a", "1")


# -- authentication


def challenge(server, **extra):
    realm = extra.pop("realm", f"http://{server.host}/token")
    header = f'Bearer realm="{realm}",service="reg",scope="repository:a:pull"'

    def guard(h):
        if h.headers.get("Authorization") == "Bearer good.token":
            return False
        h.answer(401, b"{}", {"WWW-Authenticate": header})
        return True

    server.lies["/v2/"] = guard
    server.lies["GET /token"] = lambda h: h.answer(200, json.dumps({"token": "good.token", **extra}).encode()) or True


def test_bearer_token(client, server):
    server.blobs[digest(DATA)] = DATA
    challenge(server)
    assert read(client) == DATA
    tokens = [path for _, path, _ in server.seen if path == "/token"]
    read(client)
    assert len([path for _, path, _ in server.seen if path == "/token"]) == len(tokens) == 1


def test_credentials_go_to_the_token_service(server):
    server.manifests["1"] = b"{}"
    challenge(server)
    with Registry(server.host, insecure=True, credentials=Credentials("me", "secret")) as client:
        client.manifest("a", "1")
    sent = {path: headers.get("Authorization") for _, path, headers in server.seen}
    assert sent["/token"] == basic("me", "secret")
    assert all(
        basic("me", "secret") != headers.get("Authorization") for _, path, headers in server.seen if "/v2" in path
    )


def test_credentials_do_not_go_to_another_host(server):
    with registries.lying() as other:
        other.lies["GET /token"] = lambda h: h.answer(200, b'{"token":"t"}') or True
        # The same machine under another name: what counts is the name that the challenge gives.
        realm = f"http://localhost:{other.server_address[1]}/token"
        header = answer(
            f'Bearer realm="{realm}",service="s"', server.host, Credentials("me", "secret"), scope="x", insecure=True
        )
        assert header == "Bearer t"
        assert "Authorization" not in other.seen[0][2]


@pytest.mark.parametrize(
    ("realm", "host", "kin"),
    [
        ("https://auth.example.com/token", "registry.example.com", True),
        ("https://registry.example.com/token", "registry.example.com:5000", True),
        ("https://auth.example.com/token", "example.com", False),
        ("https://evil.com/token", "registry.example.com", False),
        ("https://registry.example.com.evil.com/t", "registry.example.com", False),
        ("https://10.0.0.9/t", "10.0.0.8", False),
        ("https://[bad/t", "a.b.c", False),
    ],
)
def test_kin(realm, host, kin):
    from casemate.drivers.registryauth import _kin

    assert _kin(realm, host) is kin


def test_basic(server):
    server.manifests["1"] = b"{}"
    good = basic("me", "secret")

    def guard(h):
        if h.headers.get("Authorization") == good:
            return False
        h.answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="x"'})
        return True

    server.lies["/v2/"] = guard
    with Registry(server.host, insecure=True, credentials=Credentials("me", "secret")) as client:
        client.manifest("a", "1")
    with Registry(server.host, insecure=True, credentials=Credentials("me", "wrong")) as client:
        assert rule(lambda: client.manifest("a", "1")) == "registry.credentials"
    with Registry(server.host, insecure=True) as client:
        assert rule(lambda: client.manifest("a", "1")) == "registry.credentials"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"token":""}', b'{"token":"a b\\r\\nX: y"}', b'{"token":5}'])
def test_token_nonsense(client, server, body):
    challenge(server)
    server.lies["GET /token"] = lambda h: h.answer(200, body) or True
    with pytest.raises(Unavailable):
        client.manifest("a", "1")


def test_token_that_is_never_accepted(client, server):
    server.blobs[digest(DATA)] = DATA
    challenge(server)
    server.lies["GET /token"] = lambda h: h.answer(200, b'{"token":"bad"}') or True
    assert rule(lambda: read(client)) == "registry.credentials"
    assert rule(lambda: client.manifest("a", "1")) == "registry.credentials"
    assert len(server.seen) < 12


@pytest.mark.parametrize("text", ["", "Negotiate", "Bearer", 'Bearer realm="ftp://x"', 'Bearer realm=""', "Digest x"])
def test_odd_challenges(client, server, text):
    server.lies["/v2/"] = lambda h: h.answer(401, b"", {"WWW-Authenticate": text}) or True
    with pytest.raises((Refused, Unusable, Unavailable)):
        client.manifest("a", "1")


@pytest.mark.parametrize(
    ("data", "name"),
    [(b"me:pass:word\n", "me"), (b'{"auths":{"registry.example":{"auth":"bWU6cGFzczp3b3Jk"}}}', "me")],
)
def test_credentials(data, name):
    found = Credentials.parse(data, "registry.example")
    assert (found.username, found.password) == (name, "pass:word")
    assert "pass" not in repr(found)


@pytest.mark.parametrize(
    "data", [b"", b"me", b":x", b"\xff:x", b"{}", b'{"auths":{}}', b'{"auths":{"other":{"auth":""}}}']
)
def test_credentials_refused(data):
    with pytest.raises(Malformed):
        Credentials.parse(data, "registry.example")


# -- redirects


def test_redirect_without_credentials(server):
    with registries.lying() as store:
        store.lies["GET /store"] = lambda h: h.answer(200, DATA) or True
        target = f"http://{store.host}/store"
        server.lies["GET .*/blobs/"] = lambda h: (
            (h.headers.get("Authorization") and (h.answer(307, b"", {"Location": target}) or True))
            or (h.answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'}) or True)
        )
        with Registry(server.host, insecure=True, credentials=Credentials("me", "secret")) as client:
            assert read(client) == DATA
        assert "Authorization" not in store.seen[0][2]


def test_redirect_in_circles(client, server):
    server.lies["GET"] = lambda h: h.answer(307, b"", {"Location": h.path}) or True
    with pytest.raises(Unavailable, match="circles"):
        read(client)


@pytest.mark.parametrize(
    "location", ["http://[", "", "ftp://x/y", "//", "http://127.0.0.1:notaport/", "http://a b/", "\t"]
)
def test_redirect_to_nonsense(client, server, location):
    server.lies["GET .*/blobs/"] = lambda h: h.answer(302, b"", {"Location": location}) or True
    server.lies["POST"] = lambda h: h.answer(202, b"", {"Location": location}) or True
    server.lies["tags/list"] = lambda h: h.answer(200, b'{"tags":[]}', {"Link": f'<{location}>; rel="next"'}) or True
    with pytest.raises((Unavailable, Unusable)):
        read(client)
    with pytest.raises((Unavailable, Unusable, Refused)):
        client.put_blob("a", digest(b"x"), 1, [b"x"])
    with contextlib.suppress(Unavailable, Unusable):
        assert client.tags("a") == []


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["Bearer ", "bearer realm=", 'Bearer realm="', "Basic ", ""]))
def test_any_challenge(text, start):
    with pytest.raises((Refused, Unusable, Unavailable)):
        answer(start + text, "registry.example", None, scope="repository:a:pull", insecure=False)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_any_credentials(data):
    with contextlib.suppress(Malformed):
        Credentials.parse(data, "registry.example").header()


# -- lists


def test_tags_over_pages(client, server):
    def pages(h):
        more = "last=" not in h.path
        link = {"Link": '</v2/a/tags/list?n=1&last=one>; rel="next"'} if more else {}
        h.answer(200, json.dumps({"tags": ["one" if more else "two", 5]}).encode(), link)
        return True

    server.lies["tags/list"] = pages
    assert client.tags("a") == ["one", "two"]


def test_tags_for_ever(client, server):
    server.lies["tags/list"] = lambda h: h.answer(
        200, b'{"tags":["a"]}', {"Link": '</v2/a/tags/list?last=a>; rel="next"'}
    ) or True  # fmt: skip
    assert len(client.tags("a")) == 100


def test_referrers_by_fallback_tag(client, server):
    entry = oci.Descriptor(oci.OCI_MANIFEST, digest(b"x"), 1)
    server.manifests["sha256-" + "a" * 64] = oci.encode(oci.Index(2, (entry,), oci.OCI_INDEX))
    assert client.referrers("a", "sha256:" + "a" * 64) == (entry,)
    assert client.referrers("a", "sha256:" + "b" * 64) == ()


def test_plain_http_must_be_asked_for():
    with pytest.raises(Unavailable), Registry("127.0.0.1:9", sleep=lambda _: None) as client:
        client.manifest("a", "1")


@pytest.mark.tools
def test_debians_registry(tmp_path):
    with registries.real(tmp_path) as host, Registry(host, insecure=True) as client:
        assert client.put_blob("team/a", digest(DATA), len(DATA), [DATA])
        config = b"{}"
        client.put_blob("team/a", digest(config), 2, [config])
        body = oci.encode(
            oci.Manifest(2, oci.Descriptor(oci.OCI_CONFIG, digest(config), 2), (described(),), oci.OCI_MANIFEST)
        )
        pushed = client.put_manifest("team/a", "1", body, oci.OCI_MANIFEST)
        assert client.manifest("team/a", "1").digest == pushed == client.manifest("team/a", pushed).digest
        assert b"".join(client.blob("team/a", described())) == DATA
        assert b"".join(client._from("team/a", described(), len(DATA) - 5)) == DATA[-5:]
        assert client.tags("team/a") == ["1"]
        assert client.referrers("team/a", pushed) == ()


@pytest.mark.tools
def test_debians_registry_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("casemate.drivers.registry.PIECE", 300_000)
    with registries.real(tmp_path) as host, Registry(host, insecure=True) as client:
        chunks = [DATA[i : i + 250_000] for i in range(0, len(DATA), 250_000)]
        assert client.put_blob("a", digest(DATA), len(DATA), chunks)
        assert read(client) == DATA


@pytest.mark.tools
def test_debians_registry_with_a_password(tmp_path):
    line = "me:$2y$05$Tf/PlEAId6gG9vVpnyhcGujj.unDq1M1TUw6ju1Fs3alpqGywu92W\n"  # bcrypt of "secret"
    with registries.real(tmp_path, htpasswd=line) as host:
        with Registry(host, insecure=True) as client:
            assert rule(lambda: client.tags("a")) == "registry.credentials"
        with Registry(host, insecure=True, credentials=Credentials("me", "other")) as client:
            assert rule(lambda: client.tags("a")) == "registry.credentials"
        with Registry(host, insecure=True, credentials=Credentials("me", "secret")) as client:
            client.put_blob("a", digest(DATA), len(DATA), [DATA])
            assert read(client) == DATA


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://registry.example/token", True),
        ("https://registry.example:443/token", True),
        ("https://registry.example:8443/token", False),
        ("https://auth.example/token", False),
        ("https://registry.example:none/", True),
    ],
)
def test_the_pin_is_the_registrys_own(url, same):
    assert pin_for(url, "https://registry.example", "pin") == ("pin" if same else None)
    assert pin_for(url, "https://registry.example", None) is None
