"""One pool of evaluators for a module's tests."""

import pytest

from casemate.drivers.rego import Pool


@pytest.fixture(scope="module")
def pool():
    """Two evaluators with half a second for each question."""
    made = Pool(2, seconds=0.5)
    yield made
    made.close()
