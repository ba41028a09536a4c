"""One real broker on loopback for a module's tests."""

from datetime import timedelta

import pytest

from casemate.testing import broker as brokers


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A broker that trusts its test vendor and a plain boot."""
    made = brokers.start(tmp_path_factory.mktemp("broker"))
    made.trust()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _clock_set_back(request):
    yield
    if "service" in request.fixturenames:
        request.getfixturevalue("service").clock.shift = timedelta()
