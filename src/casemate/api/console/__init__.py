"""The web console: pages for people, rendered here, without a script and without anything from elsewhere.

Rules
1. It reads and simulates; what changes something is done with the commands or the admin API.
2. Who comes in, and what of which tenant he sees, is `casemate.broker.access` as at the admin API; the cookie only
   carries what was proved at the login (`logins`).
3. Every text of others goes through Jinja2's escaping, and no page may run a script at all (`pages.HEADERS`).

It is there only with the setting `console`. The pages are no part of the OpenAPI document (`include_in_schema`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker


def routes(broker: Broker) -> list[BaseRoute]:
    """The console's routes; none unless the settings say so."""
    if not broker.settings.console:
        return []
    from casemate.api.console import entrance, simulating, views

    return [*entrance.routes(broker), *views.routes(broker), *simulating.routes(broker)]
