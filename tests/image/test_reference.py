import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.image import reference as names
from casemate.schema.manifest import Registry

D = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        (f"registry.example/demo/nginx@{D}", "registry.example", "demo/nginx", None, D),
        (f"127.0.0.1:5000/a:1.2@{D}", "127.0.0.1:5000", "a", "1.2", D),
        ("localhost/a_b/c-d.e__f:T", "localhost", "a_b/c-d.e__f", "T", None),
        ("[::1]:5000/a", "[::1]:5000", "a", None, None),
    ],
)
def test_parse(text, registry, repository, tag, digest):
    found = names.parse(text)
    assert (found.registry, found.repository, found.tag, found.digest) == (registry, repository, tag, digest)
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "nginx", "library/nginx", f"nginx@{D}", "registry.example", "registry.example/", "registry.example/A",
        "registry.example/a//b", "registry.example/../b", "registry.example/a:", "registry.example/a@",
        "registry.example/a@sha256:abc", f"registry.example/a@{D.upper()}", f"registry.example/a@{D}@{D}",
        "registry.example/a:-x", "registry.example/a b", "registry.example/a\n", "user@registry.example/a",
        "http://registry.example/a", "-registry.example/a", "registry.example:port/a", "registry..example/a",
        "registry.example/" + "a" * 600, "régistry.example/a", "registry.example/a?x=1", "registry.example/a%2fb",
    ],
)  # fmt: skip
def test_refused(text):
    with pytest.raises(Malformed):
        names.parse(text)


def test_pinned_demands_a_digest():
    with pytest.raises(Malformed, match="digest"):
        names.parse("registry.example/a:1", pinned=True)


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("registry.example/demo/*", "registry.example/demo/nginx", True),
        ("registry.example/demo/*", "registry.example/demo/nginx/x", False),
        ("registry.example/demo/*", "registry.example/demo", False),
        ("registry.example/*/n*x", "registry.example/demo/nginx", True),
        ("registry.example/*/n*x", "registry.example/demo/nginy", False),
        ("*", "registry.example/a", False),
        ("*/*", "registry.example/a", True),
        ("registry.example/a", "registry.example/a", True),
        ("registry.example/a", "registry.example/ab", False),
        ("registry.example/aba*aba", "registry.example/aba", False),
        ("registry.example/a*b*c", "registry.example/a-c-b", False),
        ("registry.example/a*b*c", "registry.example/a-b-c", True),
        ("registryxexample/a", "registry.example/a", False),
        ("registry.example/**", "registry.example/a", True),
    ],
)
def test_patterns(pattern, name, fits):
    assert names.matches(pattern, name) is fits


def test_pattern_takes_no_exponential_time():
    assert not names.matches("*a" * 100 + "b", "a" * 500)


def test_locate():
    table = [
        Registry(prefix="registry.example", location="10.0.2.2:5000", insecure=True),
        Registry(prefix="registry.example/team", location="mirror.example/cache/", credentials="kbs:///a/b/c"),
    ]
    plain = names.locate(names.parse("registry.example/demo/x:1"), table)
    assert (plain.registry, plain.repository, plain.insecure) == ("10.0.2.2:5000", "demo/x", True)
    longer = names.locate(names.parse("registry.example/team/x:1"), table)
    assert (longer.registry, longer.repository, longer.insecure) == ("mirror.example", "cache/x", False)
    assert longer.credentials == "kbs:///a/b/c"
    border = names.locate(names.parse("registry.example/teams/x"), table)
    assert border.registry == "10.0.2.2:5000"
    none = names.locate(names.parse("registry.example:5000/x"), table)
    assert (none.registry, none.insecure) == ("registry.example:5000", False)


@given(st.one_of(st.text(max_size=80), st.from_regex(r"[a-z.:]{1,12}/[a-z/.:@_-]{1,30}", fullmatch=True)))
def test_any_text(text):
    try:
        found = names.parse(text)
    except Malformed:
        return
    assert names.parse(str(found)) == found
    assert ".." not in found.repository
