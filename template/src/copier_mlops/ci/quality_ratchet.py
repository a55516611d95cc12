"""The standard of the project, and what a change lowers: coverage, types, tests, suppressed checks, limits, CI."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from copier_mlops import project
from copier_mlops._errors import print_error
from copier_mlops.ci import base as bases
from copier_mlops.ci import code_ratchet, model_limits, workflow_ratchet
from copier_mlops.ci.base import Base, Finding

REPORT = Path("reports/standards.md")

COVERAGE = 90  # percent of lines and branches
SWITCHES = ("--deselect", "--ignore", "--no-cov", "-k", "--cov-fail-under")


def settings(text: str) -> list[str]:
    """Return one sentence for each setting of pyproject.toml that is below the standard."""
    tool = tomllib.loads(text)["tool"]
    report, run, mypy = tool["coverage"]["report"], tool["coverage"]["run"], tool["mypy"]
    words = tool["pytest"]["ini_options"].get("addopts", "").split()
    found = []
    if report.get("fail_under", 0) < COVERAGE:
        found.append(f"tool.coverage.report.fail_under is {report.get('fail_under', 0)}; the standard is {COVERAGE}")
    if not run.get("branch"):
        found.append("tool.coverage.run.branch is off; the standard counts branches")
    if run.get("source") != [project.package()]:
        found.append("tool.coverage.run.source is not the package")
    for section, keys in ((run, ("omit",)), (report, ("omit", "exclude_lines", "exclude_also"))):
        found += [f"tool.coverage: {key} leaves code out of the count" for key in keys if section.get(key)]
    if not mypy.get("strict"):
        found.append("tool.mypy.strict is off")
    found += [f"tool.pytest.ini_options.addopts has {word}" for word in words if word.split("=")[0] in SWITCHES]
    return found


def compared(base: Base) -> list[Finding]:
    """Return everything that the change lowers, each with the reason that a commit gives for it."""
    return base.reasoned([*code_ratchet.compared(base), *model_limits.lowered(base), *workflow_ratchet.lowered(base)])


def page(findings: Sequence[Finding], note: str) -> str:
    """Return the section of the pull-request report."""
    if not findings:
        text = "No test, limit or check is lowered."
    else:
        cells = [(_cell(one.text), _cell(one.reason) or "**no reason given**") for one in findings]
        text = "\n".join(
            ["| lowered by this change | reason |", "|---|---|", *(f"| {what} | {why} |" for what, why in cells)]
        )
    return f"## Standards\n\n{text}\n" + (f"\n> {note}\n" if note else "")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")[:500]


def report(text: str) -> None:
    """Write the section for the comment, and add it to the page of the job."""
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(text, encoding="utf-8")
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def main() -> int:
    """Return 0 if the project keeps the standard and every lowered one has a reason."""
    errors = settings(Path("pyproject.toml").read_text(encoding="utf-8"))
    base, note = bases.find()
    if note:
        print(f"note: {note}")
    if base:
        findings = compared(base)
        report(page(findings, note))
        for one in findings:
            if one.reason:
                print(f"note: {one.text}; reason: {one.reason}")
            else:
                errors.append(
                    f"{one.text}. If that is intended, add a line to a commit message: {one.trailer}: {one.name}, because ..."
                )
    for line in errors:
        print_error(line)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
