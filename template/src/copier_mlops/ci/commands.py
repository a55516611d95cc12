"""Commands of the checks."""

from __future__ import annotations

import subprocess
from typing import Annotated

import typer

from copier_mlops import _exit_codes, _interruption
from copier_mlops._command_line import QUALITY, commands, fail, tool

app = commands()


@app.command(rich_help_panel=QUALITY)
def check() -> None:
    """Check format, lint, types and lowered standards.

    BASE is the commit to compare the standards with.
    """
    from copier_mlops._environment import for_child

    def run(*words: str) -> bool:
        return subprocess.run([tool(words[0]), *words[1:]], env=for_child(), check=False).returncode == 0

    from copier_mlops.updates import saved_edits

    if saved_edits.main():
        raise typer.Exit(_exit_codes.ERROR)
    if not run("ruff", "format", "--check", "--quiet", "."):
        fail("not formatted; make format does it")
    if not (run("ruff", "check", "--quiet", ".") and run("mypy", "--no-error-summary")):
        raise typer.Exit(_exit_codes.ERROR)
    standards()


@app.command(rich_help_panel=QUALITY)
def standards() -> None:
    """Compare tests, limits and gates with a base commit, which BASE names."""
    _interruption.without_time_limit()
    from copier_mlops.ci import quality_ratchet

    _end(quality_ratchet.main())


@app.command(rich_help_panel=QUALITY)
def notebook() -> None:
    """Run the notebooks on the data of this folder."""
    _interruption.without_time_limit()
    from copier_mlops.ci import notebooks

    _end(notebooks.run_all())


@app.command(rich_help_panel=QUALITY)
def audit(
    checks: Annotated[list[str] | None, typer.Argument(help="Names of checks; by default all of them.")] = None,
) -> None:
    """Check secrets, large files, workflows and packages; write the SBOM."""
    _interruption.without_time_limit()
    from copier_mlops.ci import security_scan

    _end(security_scan.scan(checks or []))


def _end(code: int) -> None:
    if code:
        raise typer.Exit(code)
