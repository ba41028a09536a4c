"""schemathesis over the broker's own OpenAPI, by HTTP: no 5xx, nothing that the document does not say."""

import os

import pytest
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


def run(service, operation, headers, examples):
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
        case.call_and_validate(base_url=service.url, headers=headers, checks=CHECKS, verify=False, timeout=20)

    ask()


def credentials(service, guest):
    return ({}, {"Authorization": f"Bearer {service.admin.token()}"}, {"Authorization": f"Bearer {guest.token}"})


def test_a_few_examples_of_everything(open_broker, guest):
    for (_, path), operation in operations(open_broker).items():
        for headers in credentials(open_broker, guest):
            if not (headers and any(word in path for word in BREAKING)):
                run(open_broker, operation, headers, 3)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_examples_of_everything(open_broker, guest):
    for (_, path), operation in operations(open_broker).items():
        for headers in credentials(open_broker, guest):
            if not (headers and any(word in path for word in BREAKING)):
                run(open_broker, operation, headers, int(os.environ.get("CASEMATE_EXAMPLES", "120")))
