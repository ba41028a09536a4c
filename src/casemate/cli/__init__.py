"""The command line: one file per command, loaded when it is asked for, so that help appears at once.

A command parses, calls one role and prints. `COMMANDS` is the only list: name → (where it is, one line of help). Errors
of every command end here: a sentence, a hint and, for refusals, every failed rule. Exit codes: 0 done, 1 refused or
failed, 2 wrong use or unusable input, 130 interrupted, 141 nobody reads what is printed.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from casemate import __version__
from casemate.errors import CasemateError

__all__ = ["COMMANDS", "LazyGroup", "casemate", "main"]

# One line per command. The module is imported only when the command is called or its own help is asked for.
COMMANDS: dict[str, tuple[str, str]] = {
    "admin": ("casemate.cli.admin:admin", "Record and remove admins; mint tokens for other tools."),
    "app": ("casemate.cli.app:app", "Found apps and list them."),
    "approval": ("casemate.cli.approval:approval", "Approve changes that wait for a second owner."),
    "audit": ("casemate.cli.audit:audit", "Write records of who got which key, on what proof."),
    "backup": ("casemate.cli.backup:backup", "Write a broker's store to a sealed file."),
    "collateral": ("casemate.cli.collateral:collateral", "Fetch, show and carry vendors' collateral."),
    "decisions": ("casemate.cli.decisions:decisions", "Show what the broker decided, and why."),
    "down": ("casemate.cli.down:down", "Stop the local broker and registry."),
    "guest": ("casemate.cli.guest:guest", "Build and measure the guest image."),
    "image": ("casemate.cli.image:image", "Build, encrypt, sign, push, inspect and pull images."),
    "init": ("casemate.cli.init:init", "Make a broker's keys and store in an empty folder."),
    "inspect": ("casemate.cli.inspect:inspect", "Show everything known of one workload."),
    "key": ("casemate.cli.key:key", "List and rotate the keys of tokens and cookies."),
    "keyprovider": ("casemate.cli.keyprovider:keyprovider", "Wrap and unwrap layer keys for skopeo and its kin."),
    "log": ("casemate.cli.log:log", "Look at the broker's transparency log, and check it."),
    "logs": ("casemate.cli.logs:logs", "Show a container's output, where the manifest grants it."),
    "manifest": ("casemate.cli.manifest:manifest", "Check, identify, show and write manifests."),
    "measure": ("casemate.cli.measure:measure", "Compute the register values that a launch will show."),
    "policy": ("casemate.cli.policy:policy", "Check, test, explain, simulate and set policies in Rego."),
    "ps": ("casemate.cli.ps:ps", "List the workloads."),
    "receipt": ("casemate.cli.receipt:receipt", "Fetch and verify receipts of the broker's decisions."),
    "reference": ("casemate.cli.reference:reference", "Sign reference values, and read them in any format."),
    "release": ("casemate.cli.release:release", "Register and revoke an app's releases."),
    "restore": ("casemate.cli.backup:restore", "Fill a broker's empty store from a backup."),
    "rm": ("casemate.cli.rm:rm", "Remove a workload and all that it left on this host."),
    "run": ("casemate.cli.run:run", "Start a workload from its manifest."),
    "secret": ("casemate.cli.secret:secret", "Store and delete an app's secrets."),
    "serve": ("casemate.cli.serve:serve", "Run the broker in the foreground."),
    "status": ("casemate.cli.status:status", "Show whether the local broker and registry answer."),
    "stop": ("casemate.cli.stop:stop", "Stop a workload, gracefully and then firmly."),
    "tenant": ("casemate.cli.tenant:tenant", "Make tenants and set what each of them settled."),
    "trust": ("casemate.cli.trust:trust", "Write the trust file of a broker."),
    "up": ("casemate.cli.up:up", "Start a local broker and registry for development."),
    "verify": ("casemate.cli.verify:verify", "Verify evidence in files, or a running service."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and help lines without importing them."""

    def __init__(self, *args: Any, table: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in alphabetical order."""
        return sorted(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now, or None."""
        if cmd_name not in self.table:
            return None
        module, _, attribute = self.table[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.table[cmd_name][0]} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.table[name][1]) for name in self.list_commands(ctx)])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Like click's, with a suggestion for a mistyped name."""
        if args and args[0] not in self.table and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{_suggestion(args[0], self.table)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; the errors that Casemate raises on purpose become text (or JSON) and an exit code."""
        try:
            return super().invoke(ctx)
        except CasemateError as error:
            from casemate.cli import output

            output.error(error, as_json=output.wants_json(ctx))
            ctx.exit(error.exit_code)
        except BrokenPipeError as error:  # click takes each for a reader who has gone, and leaves in silence
            from casemate.cli import failures, output

            if failures.nobody_reads():
                raise
            ctx.exit(failures.unforeseen(error, as_json=output.wants_json(ctx)))


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name="casemate")
def casemate() -> None:
    """Run ordinary OCI containers inside trusted execution environments, and check what runs in them."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point of the `casemate` program; always exits."""
    from casemate.cli import failures

    failures.open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 still gets its message
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    """The exit code of one call."""
    from casemate.cli import failures

    as_json = failures.wants_json(sys.argv[1:] if arguments is None else arguments)
    try:
        code = casemate.main(args=arguments, prog_name="casemate", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        code = failures.usage(error, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = 130
    except BrokenPipeError as error:  # the reader (head, less) has gone: a verdict that nobody heard is none
        code = failures.CUT_OFF if failures.nobody_reads() else failures.unforeseen(error, as_json=as_json)
    except SystemExit as left:  # so click leaves when its own writing met the closed pipe
        code = failures.CUT_OFF if failures.was_cut_off() else failures.left(left)
    except Exception as error:  # noqa: BLE001 - the last handler: a person gets a sentence, never a trace
        code = failures.unforeseen(error, as_json=as_json)
    code = failures.drain(code)
    return code if isinstance(code, int) else 0


def _suggestion(word: str, known: dict[str, tuple[str, str]]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
