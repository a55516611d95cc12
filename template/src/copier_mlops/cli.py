"""The command line `mlops`. A command is in the module `commands` of its folder, which is imported when it is called.

The command modules are the top layer: they may import from each folder. They import inside their functions what takes time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

import copier_mlops
from copier_mlops import ProjectError, _command_line, _exit_codes, _interruption, _user_errors
from copier_mlops._command_line import GROUPS, fail

COMMANDS = {
    "adopt": ("adopt",),
    "lifecycle": (
        *(
            "run",
            "schedule",
            "model-check",
            "ci-train",
            "history",
            "compare",
            "promote",
            "verify-champion",
            "reproduce",
        ),
        *("predict", "forget"),
    ),
    "registry": ("ui", "move-registry"),
    "pipeline": ("pipeline", "pull", "push", "resolve", "ingest", "validate", "features", "train", "evaluate"),
    "serving": (
        *("bundle", "signing-keys", "shadow-bundle", "serve", "explain", "precompute", "serve-stream", "batch-predict"),
        *("schedule-batch", "compact-log", "batch-bundle"),
    ),
    "deploy": (
        *("image", "push-image", "sign-image", "deploy", "deploy-status", "smoke", "rollback", "rollback-deploy"),
        *("promote-deploy", "undeploy", "add-replica", "cd-config", "deploy-remote", "smoke-remote", "rollback-remote"),
        "rollback-registry",
    ),
    "monitoring": ("monitor", "import-labels"),
    "automation": (
        *("monitoring-up", "monitoring-down", "check-monitoring", "alert-webhook", "request-training"),
        *("promote-proposed", "notify"),
    ),
    "backtest": ("backtest",),
    "ci": ("check", "standards", "notebook", "audit"),
    "updates": ("update", "doctor", "update-pr"),
}
"""The names of the commands of each folder, in the order of the help."""

_FOLDERS = {name: folder for folder, names in COMMANDS.items() for name in names}


class Commands(TyperGroup):
    """The commands; those of a folder are imported when one of them is called, all of them for the help."""

    def _load(self, folders: Iterable[str]) -> None:
        for folder in folders:
            group = get_group(import_module(f"copier_mlops.{folder}.commands").app)
            self.commands.update({name: group.commands[name] for name in COMMANDS[folder]})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, imported at this moment; None if there is none of that name."""
        if cmd_name in _FOLDERS and cmd_name not in self.commands:
            self._load([_FOLDERS[cmd_name]])
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return list(_FOLDERS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands in groups, which rich would take half a second to do."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if not command.hidden:
                groups.setdefault(command.rich_help_panel, []).append((name, command.get_short_help_str(100)))
        for title in GROUPS:
            with formatter.section(title):
                formatter.write_dl(groups[title])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the arguments name; a name that is not known is compared with all of them."""
        if args and args[0] not in _FOLDERS:
            self._load(COMMANDS)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    name="mlops",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_release(wanted: bool) -> None:
    if wanted:
        print(f"copier-mlops {copier_mlops.__version__} in {copier_mlops.__path__[0]}")
        raise typer.Exit(_exit_codes.DONE)


@app.callback()
def _options(
    quiet: Annotated[bool, typer.Option("--quiet", envvar="QUIET", help="Print errors and JSON only.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_release, is_eager=True, help="Print the release of the runtime.")
    ] = False,
) -> None:
    """Train, register, serve and monitor the model of this project.

    Run it in the folder of the project. `make` lists the same tasks with their variables.

    \b
    Exit codes:
      0    done
      1    an error that you can fix, or a check found something
      2    the command line or a setting is not valid
      3    files with your changes would be overwritten
      4    the model misses the gate or a limit
      5    a rebuilt version differs from the recorded one
      75   another run or deployment is in progress: try later
      130  interrupted
    """
    _command_line.check_runtime()
    if quiet:
        _command_line.be_quiet()


def main(words: Sequence[str] | None = None) -> None:
    """Run a command and end the process; an error that the reader can fix is one message and an exit code.

    Args:
        words: arguments of the command line; by default those of this process.
    """
    try:
        given = sys.argv[1:] if words is None else words
        code = app(list(given), prog_name="mlops", standalone_mode=False)
        if code == _exit_codes.INTERRUPTED:  # Typer returns the code instead of the exception
            raise KeyboardInterrupt
    except ProjectError as error:
        _fail_in_own_file(error, str(error), error.exit_code)
        fail(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        fail(_interruption.STOPPED, _exit_codes.INTERRUPTED)
    except Exception as error:
        if hasattr(error, "format_message"):  # of the command line: typer keeps the class to itself
            fail(f"{error.format_message()}; {_hint(error)}", _exit_codes.USAGE)
        cause = f"{type(error).__name__}: {error}{_user_errors.remedy(error)}"
        _fail_in_own_file(error, cause, _exit_codes.ERROR)
        raise
    sys.exit(code if isinstance(code, int) else _exit_codes.DONE)


def _hint(error: Any) -> str:
    """Return where the right use is written."""
    command = getattr(getattr(error, "ctx", None), "info_name", None)
    name = f" {command}" if command in _FOLDERS else ""
    return f"`mlops{name} --help` shows the use."


def _fail_in_own_file(error: Exception, cause: str, code: int) -> None:
    """End with the line of the user's file that failed and its cause; return if no such file is involved."""
    line = _user_errors.own_line(error)
    if line:
        print(line, file=sys.stderr)
        fail(f"{cause}\n{_user_errors.keep(error)}", code)


if __name__ == "__main__":
    main()
