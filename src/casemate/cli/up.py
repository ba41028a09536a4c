"""`casemate up`: a local trust domain for development."""

from __future__ import annotations

import json

import click

from casemate.cli import output


@click.command()
@output.json_option
def up(as_json: bool) -> None:
    """Start a broker and a registry on loopback, with a platform CA and the guest image. Again changes nothing.

    They outlive this command; `casemate down` stops them. Everything is kept in $CASEMATE_HOME (./.casemate).
    """
    from casemate.broker import local
    from casemate.drivers import brokerclient, keyfiles, paths
    from casemate.drivers.brokerclient import Admin
    from casemate.host import domain
    from casemate.ledger import history
    from casemate.verifier.trust import Trust

    home = paths.home()
    broker = local.start(home)
    registry = domain.start_registry(home)
    platform = domain.platform(home, output.note)
    admin = Admin(broker.url, broker.pin, broker.admin_key)
    admin.add_anchor(platform.anchor)
    admin.call("POST", "/tenants/*", {"unsigned_references": True})  # this machine made its guest image itself
    for reference in platform.references:
        admin.add_reference(reference)
    facts = {"url": broker.url, "guest_url": broker.guest_url, "pin": broker.pin, "pid": broker.pid}
    context = domain.remember(home, facts, broker.admin_key, registry, platform)
    log = history.parse(brokerclient.info(broker.url, broker.pin).get("log"))
    trust = Trust(broker.url, broker.pin, (platform.anchor,), platform.references, log)
    keyfiles.write(home / "trust.json", json.dumps(trust.as_document(), indent=2).encode())
    output.emit(context, as_json=as_json)
