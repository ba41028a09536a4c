"""`casemate status`: whether the local trust domain answers."""

from __future__ import annotations

import click

from casemate.cli import output


@click.command()
@output.json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show the local broker and registry and whether they answer. Exit 1 when one does not."""
    from casemate.broker import local
    from casemate.drivers import paths
    from casemate.errors import Malformed, Unusable
    from casemate.host import domain

    home = paths.home()
    context = domain.context(home)
    if context is None:
        raise Unusable(f"no local trust domain in {home}", hint="casemate up")
    try:
        broker, registry = context["broker"], context["registry"]
        state = {
            "broker": {**broker, "answers": local.answers(broker["url"], broker["pin"])},
            "registry": {**registry, "answers": domain.answers(registry["host"])},
            "guest_image": context["guest_image"],
        }
    except (KeyError, TypeError) as error:
        raise Malformed(f"context.json in {home}: {error} is missing", hint="casemate up writes it anew") from error
    output.emit(state, as_json=as_json, text=lambda: _lines(state))
    ctx.exit(0 if state["broker"]["answers"] and state["registry"]["answers"] else 1)


def _lines(state: dict[str, dict[str, object]]) -> None:
    broker, registry = state["broker"], state["registry"]
    click.echo(f"broker       {broker['url']}  {'answers' if broker['answers'] else 'does not answer: casemate up'}")
    click.echo(f"  pin        {broker['pin']}")
    click.echo(f"  for guests {broker['guest_url']}")
    click.echo(
        f"registry     {registry['host']}  {'answers' if registry['answers'] else 'does not answer: casemate up'}"
    )
    click.echo(f"guest image  {state['guest_image']}")
