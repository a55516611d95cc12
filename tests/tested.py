"""The table of `make test-all`, for people who choose a release. Such a run takes hours: what passed is noted as it passes, and
a run that was cut off, or one of a part, is carried on by the next as long as nothing in the tree has changed. What was noted on
another tree stays in the table, under that tree's commit, until it has run again."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTES = ROOT / ".cache/tested.jsonl"
OUTPUTS = {"docs/tested.md", "docs/benchmarks.md", "benchmarks/results.json"}  # what runs write changes no run


def tree(root: Path) -> str:
    """A name for all that a run tests: the files that git knows or would take, as they are."""
    said = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(said, cwd=root, capture_output=True, check=True, text=True).stdout.split("\0")
    found = hashlib.sha256()
    for name in sorted(set(names) - OUTPUTS):
        if name and (root / name).is_file():
            found.update(f"{name}\0".encode() + hashlib.sha256((root / name).read_bytes()).digest())
    return found.hexdigest()[:16]


class Table:
    """A plugin that leaves out what passed on this tree, notes what ends, and writes the table.

    Args:
        file: The table.
        config: pytest's; a worker of xdist is told by the first process what passed.
    """

    def __init__(self, file: Path, config: pytest.Config) -> None:
        self.file = file
        self.config = config
        self.cases: set[str] = set()
        self.worker = getattr(config, "workerinput", None)
        if self.worker is not None:
            self.passed = set(self.worker["passed"])
            return
        self.tree, self.commit = tree(ROOT), _commit()
        self.ended = {one["case"]: one for one in map(json.loads, self._whole())}
        self.passed = {
            case for case, one in self.ended.items() if one["outcome"] == "passed" and one["tree"] == self.tree
        }

    def _whole(self) -> list[str]:
        """The notes' lines; the last is taken off where a run was killed while it wrote it."""
        lines = NOTES.read_text(encoding="utf-8").splitlines(keepends=True) if NOTES.exists() else []
        if lines and not lines[-1].endswith("\n"):
            NOTES.write_text("".join(lines[:-1]), encoding="utf-8")
        return [line for line in lines if line.endswith("\n")]

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["passed"] = sorted(self.passed)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.cases.update(getattr(node, "workeroutput", {}).get("cases", ()))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        self.cases.update(item.nodeid for item in items)
        before = [item for item in items if item.nodeid in self.passed]
        items[:] = [item for item in items if item.nodeid not in self.passed]
        config.hook.pytest_deselected(items=before)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.worker is not None:
            session.config.workeroutput["cases"] = sorted(self.cases)  # type: ignore[attr-defined]
        elif session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.passed:
            session.exitstatus = pytest.ExitCode.OK

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A case ends as its call does, or before it or after it where that fails; its seconds are those of all three."""
        if self.worker is not None:
            return
        one = self.ended.get(report.nodeid) if report.when != "setup" else None
        one = one or {
            "case": report.nodeid,
            "tree": self.tree,
            "commit": self.commit,
            "outcome": "passed",
            "seconds": 0.0,
        }
        one["seconds"] = round(one["seconds"] + report.duration, 2)
        if report.outcome != "passed":
            one["outcome"] = report.outcome
        self.ended[report.nodeid] = one
        if report.when == "teardown":
            NOTES.parent.mkdir(exist_ok=True)
            with NOTES.open("a", encoding="utf-8") as notes:
                notes.write(json.dumps(one) + "\n")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.worker is not None:
            return
        if not self.cases:  # a worker that is interrupted does not say which there are
            terminalreporter.line(f"cut off: {self.file} is as it was; the same command goes on", yellow=True)
            return
        self.file.write_text("\n".join(self.lines()) + "\n", encoding="utf-8")
        left = sorted(self.cases - self.ended.keys())
        if self.passed:
            terminalreporter.line(
                f"{len(self.passed)} cases passed on this very tree before and were not run again; without {NOTES} they are"
            )
        if left:
            terminalreporter.line(f"{len(left)} cases did not run yet: the same command goes on", yellow=True)

    def lines(self) -> list[str]:
        """The page: a line for each test, its cases counted; those with a name of several words each have their own."""
        found: dict[tuple[str, str], list[float]] = {}
        passed: dict[str, int] = {}
        for case in self.cases:
            module, _, name = case.partition("::")
            what, _, told = name.partition("[")
            said = what.replace("_", " ").removeprefix("test ") + (f": {told[:-1]}" if " " in told else "")
            line = found.setdefault((module.removeprefix("tests/test_").removesuffix(".py"), said), [0, 0, 0])
            one = self.ended.get(case, {"outcome": "", "seconds": 0, "commit": ""})
            line[0] += 1
            line[1] += one["outcome"] == "passed"
            line[2] += one["seconds"]
            if one["outcome"] == "passed":
                passed[one["commit"]] = passed.get(one["commit"], 0) + 1
        on = ", ".join(f"{count:,} on {commit}" for commit, count in sorted(passed.items(), key=lambda each: -each[1]))
        left = len(self.cases - self.ended.keys())
        return [
            "# What was tested", "",
            "Written by `make test-all` before a release: every test, and the long products of cases that `make test` leaves out.", "",
            f"{len(self.cases):,} cases, {sum(passed.values()):,} passed ({on}){f', {left:,} not run yet' if left else ''}; "
            f"{time.strftime('%Y-%m-%d')}, Python {sys.version.split()[0]}.", "",
            "| where | what | cases | passed | seconds |", "| --- | --- | --- | --- | --- |",
            *(f"| {where} | {what} | {line[0]} | {line[1]} | {line[2]:.0f} |" for (where, what), line in sorted(found.items())),
        ]  # fmt: skip


def _commit() -> str:
    """Its name, and whether files are other than it has them."""
    said = ["git", "describe", "--always"]
    name = subprocess.run(said, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "no commit"
    others = [".", *(f":!{output}" for output in sorted(OUTPUTS))]
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *others], cwd=ROOT, check=False).returncode
    return f"{name}-dirty" if changed else name
