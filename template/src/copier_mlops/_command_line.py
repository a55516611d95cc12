"""What the command modules share: options, settings, output. It imports little, since each command begins with it."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from copier_mlops import ProjectError, _exit_codes, project
from copier_mlops._errors import print_error

if TYPE_CHECKING:
    from rich.console import Console

    from copier_mlops.settings import Settings

TABLE, TRAIN, DECIDE = "Your own table", "Train", "Inspect and decide"
SERVE, DEPLOY, MONITOR = "Predict and serve", "Deploy", "Monitor and act"
QUALITY, TEMPLATE, CI, STAGES = "Quality", "The template", "For CI and CD", "Stages of dvc.yaml"
GROUPS = (TABLE, TRAIN, DECIDE, SERVE, DEPLOY, MONITOR, QUALITY, TEMPLATE, CI, STAGES)
"""The groups of the help, in order."""

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Reason = Annotated[str, typer.Option(help="Reason for the record.")]
Version = Annotated[int | None, typer.Option(help="Number of a registered version, as `mlops history` lists them.")]

_json_to: list[TextIO] = []


def commands() -> typer.Typer:
    """Return an empty set of commands, for the command module of a folder."""
    return typer.Typer(add_completion=False, rich_markup_mode=None)


def fail(message: str, code: int = _exit_codes.ERROR) -> NoReturn:
    """Print an error and end."""
    sys.exit(print_error(message, code))


def be_quiet() -> None:
    """Discard what is printed from here on, except errors and JSON."""
    # The file itself, not sys.stdout: tools that a command starts inherit it. JSON goes to a copy of the previous one.
    _json_to.append(os.fdopen(os.dup(1), "w"))
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)


def print_json(value: Any) -> None:
    """Print a value as JSON, also with --quiet."""
    text = json.dumps(_finite(value), indent=2, default=str, allow_nan=False)
    print(text, file=_json_to[-1] if _json_to else sys.stdout, flush=True)


def _finite(value: Any) -> Any:
    """Return the value with null in place of NaN and infinity, which JSON has no words for."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def warn(text: str) -> None:
    """Print a note; in a job of GitHub it is shown on the page of the job. An empty text prints nothing."""
    if text:
        print(f"::warning::{text}" if os.environ.get("GITHUB_STEP_SUMMARY") else f"note: {text}", flush=True)


def applied_settings() -> Settings:
    """Return the settings, and give this process their environment before a tool is imported that reads it."""
    from copier_mlops.settings import Settings

    settings = Settings()
    settings.apply()
    return settings


def without_secrets() -> None:
    """Start this command again in an environment without secrets: it loads a model, and a model is code."""
    from copier_mlops import _environment
    from copier_mlops.settings import Settings

    _environment.restart_for_model(Settings().environment())


def check_runtime() -> None:
    """Check that the runtime which runs is the one in the project's folder.

    Raises:
        ProjectError: If the project has a runtime of its own and another one runs.
    """
    root = project.root()
    if root is None:
        return
    own, running = (root / "src/copier_mlops").resolve(), Path(__file__).resolve().parent
    if (own / "__init__.py").is_file() and own != running:
        raise ProjectError(
            f"the runtime in {running} runs, but this project has its own in {own}: another project or another release is "
            f"installed in the environment {sys.prefix}. Run `make setup` in {root}, then call {root}/.venv/bin/mlops."
        )


def tool(name: str) -> str:
    """Return the path of a command of this environment."""
    return str(Path(sys.executable).with_name(name))


def uv() -> str:
    """Return the path of uv: UV, as make passes it, else the one on the PATH, else the project's own."""
    return os.environ.get("UV") or shutil.which("uv") or str(Path(".tools/bin/uv").absolute())


def pass_on(**values: object) -> None:
    """Put options into the environment, from which the code of a host reads its settings; empty ones change nothing."""
    os.environ.update({name: str(value) for name, value in values.items() if value not in ("", None, False)})


def console() -> Console:
    """Return the console of tables; off a terminal it is wide enough that no line of a log is cut."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160)


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows under a title; the columns are those of all rows."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    names = dict.fromkeys(name for row in rows for name in row)  # runs may have been judged by different metrics
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    console().print(table)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
