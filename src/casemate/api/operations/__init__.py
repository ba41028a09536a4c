"""What OpenAPI says of each route: one declaration a method and path, in the module of its kind.

A route without a declaration, or a declaration without a route, fails `tests/api/test_openapi.py` with its name.
"""

from casemate.api.operations import access, admins, logs, policies, protocol, secrets
from casemate.api.operations.shape import Operation

__all__ = ["ALL", "Operation"]

ALL: tuple[Operation, ...] = (
    *protocol.OPERATIONS,
    *access.OPERATIONS,
    *admins.OPERATIONS,
    *logs.OPERATIONS,
    *secrets.OPERATIONS,
    *policies.OPERATIONS,
)
