"""Commands of the template: update, doctor, the pull request with an update."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from copier_mlops import ProjectError, _exit_codes, _interruption
from copier_mlops._command_line import CI, TEMPLATE, AsJson, commands, fail, print_json, uv

app = commands()


@app.command(rich_help_panel=TEMPLATE)
def update(
    ref: Annotated[str, typer.Option(help="Release to move to; by default the newest.")] = "",
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="QUESTION=ANSWER", help="Another answer: license=MIT.")
    ] = None,
    template: Annotated[str, typer.Option(help="New address of the template.")] = "",
    trust: Annotated[bool, typer.Option("--trust", help="Run migrations, which are code of the template.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would change, and change nothing.")] = False,
    proceed: Annotated[bool, typer.Option("--continue", help="Resume after conflicts were resolved.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Restore files, packages and databases.")] = False,
    checks: Annotated[str, typer.Option(help="Make targets that have to pass, separated by spaces.")] = "check test",
) -> None:
    """Move this project to a newer release of its template, on a branch.

    Your edits are merged. Exit code 1 if something is left for you to decide.
    """
    _interruption.without_time_limit()
    wrong = [one for one in given or [] if "=" not in one]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is not an answer such as license=MIT", param_hint="--set")
    from copier_mlops.updates import update as updates

    project = Path.cwd()
    if undo:
        print(updates.undo(project))
        return
    answers = dict(one.split("=", 1) for one in given or [])
    options = updates.Options(
        ref=ref, given=answers, template=template, trust=trust, plan=plan, targets=tuple(checks.split())
    )
    code = updates.proceed(project, options) if proceed else updates.update(project, options)
    if code:
        raise typer.Exit(code)


@app.command(rich_help_panel=TEMPLATE)
def doctor(
    heal: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Restore a file from the release.")] = None,
    as_json: AsJson = False,
) -> None:
    """List differences from the release of the template.

    Exit code 0 without differences, 1 with some, 2 if the comparison is not possible.
    """
    _interruption.without_time_limit()
    from copier_mlops.updates import doctor as checks

    try:
        origin = checks.origin_of(Path.cwd())
        if heal:
            checks.bring_back(Path.cwd(), origin, heal)
            return
        report = checks.examine(Path.cwd(), origin, uv())
    except ProjectError as error:
        fail(str(error), _exit_codes.USAGE)
    if as_json:
        print_json(report.as_json())
    else:
        checks.show(report)
    if not report.healthy:
        raise typer.Exit(_exit_codes.ERROR)


class Step(StrEnum):
    """A job of the workflow that proposes updates."""

    MERGE = "merge"
    CHECK = "check"
    OPEN = "open"


@app.command("update-pr", rich_help_panel=CI)
def update_pr(
    step: Annotated[
        Step, typer.Argument(help="merge the newest release, check it without a token, or open the pull request.")
    ],
) -> None:
    """Propose the newest release of the template as a pull request."""
    _interruption.without_time_limit()
    from copier_mlops.updates import update_pr as proposals

    code = proposals.propose(step.value)
    if code:
        raise typer.Exit(code)
