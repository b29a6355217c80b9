"""The root command: a lazy table of commands, and the boundary where errors become messages and exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import typer
import typer.core

import ftcli
from ftcli.stages import STAGES

PIPELINE: dict[str, tuple[str, str]] = {
    "run": ("ftcli.cli.pipeline:run", "Run a recipe: each stage that is not done, in order."),
    "plan": ("ftcli.cli.pipeline:plan", "Check a recipe; print every setting with its origin."),
    "status": ("ftcli.cli.pipeline:status", "Show what a run directory holds."),
    "lineage": ("ftcli.cli.pipeline:lineage", "Show what each result was made from."),
    "verify": ("ftcli.cli.pipeline:verify", "Rehash a run directory and name what changed."),
    "inspect-mask": ("ftcli.cli.inspect_mask:inspect_mask", "Show which tokens are trained on; check the template."),
    "diff": ("ftcli.cli.diff:diff", "Compare two results of prep: settings, counts, rows."),
    "compare": ("ftcli.cli.compare:compare", "Compare two results of eval; no model is loaded."),
    "serve": ("ftcli.cli.serve:serve", "Open the desk where people judge answers and rows."),
    "votes": ("ftcli.cli.votes:votes", "Export or import what people judged; sheets for people offline."),
    "chat": ("ftcli.cli.chat:chat", "Talk to a model, or to two side by side."),
}


class LazyGroup(typer.core.TyperGroup):
    """A group that knows names and help from plain tables, and imports a command's module only when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*STAGES, *PIPELINE]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in STAGES:
            from ftcli.cli.flags import stage_command

            return stage_command(cmd_name, *STAGES[cmd_name])
        if cmd_name in PIPELINE:
            module, _, name = PIPELINE[cmd_name][0].partition(":")
            function = getattr(importlib.import_module(module), name)
            from ftcli.cli.flags import Command

            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command(cmd_name, cls=Command, help=function.__doc__)(function)
            return typer.main.get_command(app)
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in STAGES and args[0] not in PIPELINE and not args[0].startswith("-"):
            from ftcli.core.config import nearest

            hint = nearest(args[0], self.list_commands(ctx))
            ctx.fail(f"no such command {args[0]}{'; ' + hint if hint else ''}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Stages"):
            formatter.write_dl([(name, text) for name, (_, text) in STAGES.items()])
        with formatter.section("Pipeline"):
            formatter.write_dl([(name, text) for name, (_, text) in PIPELINE.items()])


app = typer.Typer(cls=LazyGroup, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(value: bool) -> None:
    if value:
        print(ftcli.__version__)
        raise typer.Exit


@app.callback(no_args_is_help=True)
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """From raw text to a fine-tuned, aligned, measured language model, in one run directory.

    Each stage is a command; a recipe joins them. Exit codes: docs/exit-codes.md.
    """


def main() -> None:
    """Entry point. A user's mistake is one message and an exit code; anything else keeps its traceback."""
    from ftcli.core.errors import DISK_ERRORS, INTERRUPTED, DiskError, FtcliError, NeedsHuman, Stopped

    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except SystemExit as end:  # Typer makes this of an interrupt, and of everything it ends itself
        if end.code == INTERRUPTED:
            print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        raise
    except FtcliError as error:
        print(f"{'' if isinstance(error, Stopped | NeedsHuman) else 'error: '}{error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _drop_stdout()
        sys.exit(1)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        _drop_stdout()
        print(f"error: the result could not be written: {error}", file=sys.stderr)
        sys.exit(DiskError.exit_code)


def _drop_stdout() -> None:
    """Keep Python from trying, and failing, once more to write what is left in stdout's buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
