"""schemathesis over the broker's own OpenAPI, by HTTP: no 5xx, nothing that the document does not say."""

import os

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from casemate.api import openapi
from casemate.api import operations as declared
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    unsupported_method,
]
# What a call with good credentials would break for the calls after it.
BREAKING = ("rotate", "restore")


pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")


@pytest.fixture(scope="module")
def open_broker(tmp_path_factory):
    made = brokers.start(tmp_path_factory.mktemp("schema"))
    made.trust()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def guest(open_broker):
    app = open_broker.found()
    open_broker.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"value")
    made = Guest(open_broker, app.manifest)
    assert made.handshake().status == 200
    return made


def operations(service):
    schema = schemathesis.openapi.from_dict(openapi.document(service.app.routes))
    found = {(one.ok().method.upper(), one.ok().path): one.ok() for one in schema.get_all_operations()}
    return {name: one for name, one in found.items() if "Other" not in (one.tags or ())}  # test_openapi names those


def run(service, session, operation, headers, examples):
    """Examples of one operation, good and bad, each checked against the document."""
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))

    @given(case=cases)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples < 100,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case):
        case.call_and_validate(
            base_url=service.url, headers=headers, checks=CHECKS, timeout=20, verify=False, session=session
        )

    ask()


def everything(service, guest, examples):
    """Each operation as a stranger, and with the credentials that it asks for."""
    locks = {(one.method, one.path.replace(":path}", "}")): one.lock for one in declared.ALL}
    known = {"admin": service.admin.token, "guest": lambda: guest.token, "challenge": lambda: guest.token}
    with requests.Session() as session:
        for name, operation in operations(service).items():
            run(service, session, operation, {}, examples)
            lock = locks.get((name[0], name[1]), "open")
            if lock in known and not any(word in name[1] for word in BREAKING):
                run(service, session, operation, {"Authorization": f"Bearer {known[lock]()}"}, examples)


def test_a_few_examples_of_everything(open_broker, guest):
    everything(open_broker, guest, 3)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_examples_of_everything(open_broker, guest):
    everything(open_broker, guest, int(os.environ.get("CASEMATE_EXAMPLES", "120")))
