"""What browsers send may be anything: only the parsers' own errors come of it."""

from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casemate.api.console import logins, pages
from casemate.broker.refusals import Unauthenticated
from casemate.errors import Malformed
from casemate.wire.encoding import b64u

FORM = SimpleNamespace(headers={"content-type": "application/x-www-form-urlencoded"})


@given(st.one_of(st.binary(max_size=300), st.from_regex(rb"([a-c%&=+;]|%[0-9a-fA-F]{2}){0,80}", fullmatch=True)))
def test_forms(body):
    try:
        found = pages.fields(FORM, body)
    except Malformed:
        return
    assert all(isinstance(value, str) for pair in found.items() for value in pair)


@pytest.mark.parametrize("body", [b"a=1&a=2", b"a=%ff", b"\xff=1", b"&".join(b"a%d=1" % n for n in range(33))])
def test_forms_that_no_browser_sends(body):
    with pytest.raises(Malformed):
        pages.fields(FORM, body)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(b64u)))
def test_cookies(service, value):
    with pytest.raises(Unauthenticated):
        logins.opened(service.broker, value, service.clock())


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_cookie_is_none(service, place, flip):
    login = logins.Login(who="a", known_by="b", role="owner", tenant=None, claimed=False, expires=2e12, csrf="c")
    value = bytearray(logins.sealed(service.broker, login).encode())
    assert logins.opened(service.broker, value.decode(), service.clock()) == login
    raw = bytearray(logins.unb64u(value.decode(), "cookie"))
    raw[place % len(raw)] ^= flip
    with pytest.raises(Unauthenticated):
        logins.opened(service.broker, b64u(bytes(raw)), service.clock())
