"""What the drivers' tests share."""

import pytest

from casemate.testing import postgres, programs


@pytest.fixture(scope="session")
def postgres_url():
    """A real PostgreSQL server; skips with the reason where there can't be one."""
    try:
        with postgres.server() as url:
            yield url
    except programs.Missing as reason:
        pytest.skip(str(reason))
