"""Commands of your own table."""

from __future__ import annotations

from typing import Annotated

import typer

from copier_mlops import _exit_codes
from copier_mlops._command_line import TABLE, applied_settings, commands, console, fail

app = commands()


@app.command(rich_help_panel=TABLE)
def adopt(
    data: Annotated[str, typer.Argument(help="A file, folder or glob, s3:// or a SQL address.")],
    target: Annotated[str, typer.Option(help="Column to predict.")] = "",
    time: Annotated[str, typer.Option(help="Column that orders rows.")] = "",
    identifier: Annotated[str, typer.Option("--id", help="Column that names a row.")] = "",
    group: Annotated[str, typer.Option(help="Column that names the subject, where subjects have several rows.")] = "",
    query: Annotated[str, typer.Option(help="SELECT of a SQL address.")] = "",
    problem: Annotated[str, typer.Option(help="classification or regression, where the target allows both.")] = "",
    header: Annotated[str, typer.Option(help="yes or no: whether the first line of a CSV file has the names.")] = "",
    drop: Annotated[str, typer.Option(help="Columns to leave out, separated by commas.")] = "",
    keep: Annotated[str, typer.Option(help="Columns that are known before the target is, separated by commas.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that you changed.")] = False,
) -> None:
    """Write the project's code for your own table.

    Exit code 3 if files with changes of yours would be overwritten.

    The environment variable STYLE_<column> has the format of a column: "%d.%m.%Y", "1.234,5", "seconds".
    """
    if not data or not target:
        fail(
            "name the table and what to predict: make adopt DATA=../customers.csv TARGET=churned [TIME=...] [ID=...]",
            _exit_codes.USAGE,
        )
    if header not in ("", "yes", "no"):
        fail(f"HEADER={header} is not valid; it is yes or no.", _exit_codes.USAGE)
    settings = applied_settings()
    from copier_mlops.adopt.adopt import Options, adopt

    left, known = (tuple(filter(None, map(str.strip, given.split(",")))) for given in (drop, keep))
    options = Options(settings.column_styles(), {"yes": True, "no": False}.get(header), left, known, group)
    done = adopt(settings, data, target, time, identifier, query, problem, force, options=options)
    from rich.table import Table

    table = Table(box=None, padding=(0, 2), header_style="bold")
    for name in ("column", "taken as", "why", "look at"):
        table.add_column(name, overflow="fold")
    for one in done.plan.decisions:
        role = one.role if one.role in ("left out", "feature") else f"the {one.role}"
        taken_as = " ".join(filter(None, [role.replace("feature", "input,"), one.kind]))
        table.add_row(one.name, taken_as, one.why, one.doubt)
    console().print(table)
    for warning in done.plan.warnings:
        print(f"note: {warning}")
    for note in done.notes:
        print(note)
    print(f"\n{done.plan.rows:,} rows, a {done.plan.problem}. Written: {', '.join(done.written)}")
    print("Read them, then: make run")
