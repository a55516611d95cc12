"""Values given to `make` reach the programs as they were typed: neither make nor the shell expands them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, Render

HOSTILE = "`touch HIT` $(touch HIT) $$(touch HIT) $(shell touch HIT) ${HOME} costs $5 $$ \"q\" 'it's' \\ # ; touch HIT"
RECORDER = '#!/bin/sh\n{ printf "%s\\036" "$@"; env; printf "\\035"; } >>"$RECORD"\n'
TARGET = re.compile(r"^([a-z][a-z-]*):(?!=)", re.MULTILINE)
VALUE = re.compile(r"\$\$\{?([A-Z][A-Z_]+|[AB]\b)")


@pytest.fixture(scope="module")
def stubbed(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with every option whose installed programs only write down what they were given."""
    folder = tmp_path_factory.mktemp("make") / "project"
    shutil.copytree(render(serving="[online,batch,streaming,hybrid]", deploy="compose", monitoring="true"), folder)
    tools = folder / ".venv/bin"
    tools.mkdir(parents=True)
    listed = re.search(r"^COMMANDS := \$\(PACKAGE\) (.*)$", (folder / "Makefile").read_text(), re.MULTILINE)
    assert listed, "the Makefile says which commands it installs"
    others = ("flight_delays", "uv", "git", "podman", "docker", "promtool", "amtool")
    for name in (*listed[1].split(), *others):
        (tools / name).write_text(RECORDER)
        (tools / name).chmod(0o755)
    (folder / ".venv/.ready").write_text(f"{(folder / '.venv').resolve()}\n")
    return folder


def run(folder: Path, target: str, values: dict[str, str], record: Path, *, typed: bool) -> str:
    """Run one target with values on the command line, or in the environment; return what its programs recorded."""
    record.unlink(missing_ok=True)
    kept = {"HOME": str(folder), "PATH": f"{folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(
        [
            "make",
            "--no-print-directory",
            target,
            *((f"{key}={value}" for key, value in values.items()) if typed else ()),
        ],
        cwd=folder,
        env={**kept, "RECORD": str(record), **({} if typed else values)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return record.read_text() if record.exists() else ""


def targets_and_values(*makefiles: Path) -> tuple[list[str], list[str]]:
    text = "\n".join(file.read_text() for file in makefiles)
    return sorted(set(TARGET.findall(text)) - {"test-all"}), sorted(set(VALUE.findall(text)) - {"RECORD"})


@pytest.mark.parametrize("typed", [True, False], ids=["command line", "environment"])
def test_no_target_of_a_project_expands_a_value(stubbed: Path, tmp_path: Path, typed: bool) -> None:
    targets, values = targets_and_values(stubbed / "Makefile", *(stubbed / "make").glob("*.mk"))
    assert {"promote", "score", "deploy", "monitor"} <= set(targets)
    assert {"WHY", "VERSION", "INPUT", "OUTPUT", "ONLY", "HEAL", "BUNDLE"} <= set(values)
    ran = 0
    for target in targets:
        ran += bool(run(stubbed, target, dict.fromkeys(values, HOSTILE), tmp_path / "record", typed=typed))
        assert not (stubbed / "HIT").exists(), f"make {target} runs what a value contains"
    assert ran > 0.8 * len(targets)  # the others need tools of the system, or call no program


@pytest.mark.parametrize("typed", [True, False], ids=["command line", "environment"])
@pytest.mark.parametrize(
    ("target", "name", "option"),
    [
        ("promote", "WHY", "--why="),
        ("rollback", "WHY", "--why="),
        ("promote-live", "WHY", "--why="),  # nests another make
        ("predict", "INPUT", ""),
        ("update", "SET", "--set="),
        ("shadow", "VERSION", "--version="),
        ("adopt", "QUERY", "--query="),
        ("adopt", "GROUP", "--group="),
    ],
)
def test_a_value_arrives_as_typed(
    stubbed: Path, tmp_path: Path, target: str, name: str, option: str, typed: bool
) -> None:
    record = run(stubbed, target, {name: HOSTILE}, tmp_path / "record", typed=typed)
    assert f"{option}{HOSTILE}\036" in record
    assert f"{name}={HOSTILE}\n" in record, "the environment of the program has another value"


def test_report_prints_what_is_there_and_names_what_is_missing(stubbed: Path) -> None:
    def report() -> tuple[str, str]:
        words = ["make", "--no-print-directory", "report"]
        kept = {"PATH": os.environ["PATH"]}
        done = subprocess.run(words, cwd=stubbed, env=kept, capture_output=True, text=True, check=False)
        return done.stdout, done.stderr

    pages = [stubbed / "reports" / name for name in ("report.html", "model_card.md")]
    assert "error: there is no reports/report.html yet. `make run` writes it." in report()[1]
    pages[0].parent.mkdir(exist_ok=True)
    for page in pages:
        page.touch()
    assert report() == ("".join(f"{page}\n" for page in pages), "")


def test_no_target_of_the_repository_reads_a_value_through_make() -> None:
    """The same mechanism: recipes of this repository read values from the environment, too."""
    makefile = ROOT / "Makefile"
    _, values = targets_and_values(makefile)
    assert {"ONLY", "PROJECTS", "REF"} <= set(values)
    recipes = "".join(line for line in makefile.read_text().splitlines(keepends=True) if line.startswith(("\t", "  ")))
    assert not re.findall(rf"\$\((?:if \$\()?({'|'.join(values)})\b", recipes)


# ---------------------------------------------------------------------------------------------------------- Help

DAILY = ["run", "report", "history", "compare", "promote", "predict", "check", "test"]
LINE = re.compile(r"^  make ([a-z-]+) +(\S.*)$", re.MULTILINE)


def help_of(folder: Path, target: str) -> str:
    """What `make` prints without an installed project: help needs neither packages nor Python."""
    return subprocess.run(
        ["make", "--no-print-directory", target], cwd=folder, env={"PATH": os.defpath}, capture_output=True, text=True, check=True
    ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def every_option(render: Render) -> Path:
    return render(serving="[online,batch,streaming,hybrid]", deploy="compose", monitoring="true")


def test_help_begins_with_the_daily_targets(every_option: Path) -> None:
    said = help_of(every_option, "help")
    assert [name for name, _ in LINE.findall(said)][: len(DAILY)] == DAILY
    assert re.findall(r"^\S.*", said, re.MULTILINE)[:2] == ["Daily work", "Help"]
    assert "make pass " not in said and "make retrain " not in said and "make delivery " not in said


def test_help_all_lists_every_target_once_in_short_lines(every_option: Path) -> None:
    said = help_of(every_option, "help-all")
    targets, _ = targets_and_values(every_option / "Makefile", *(every_option / "make").glob("*.mk"))
    names = [name for name, _ in LINE.findall(said)]
    assert sorted(names) == sorted(set(targets) - {"moved", "missing", "champion-before"})
    assert max(map(len, said.splitlines())) <= 100
    texts = [re.split(r": [A-Z]| \[|; ", text)[0] for _, text in LINE.findall(said)]
    assert [text for text in texts if len(text) > 60 or not text[0].islower()] == []


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("runn", "Did you mean `make run`?"),
        ("compct-log", "Did you mean `make compact-log`?"),
        ("promot", "Did you mean `make promote`?"),
        ("xyzzy", "there is no target xyzzy. `make help` lists the targets."),
        ("it's; touch HIT", "there is no target it's; touch HIT."),
    ],
)
def test_an_unknown_target_names_the_closest_one(every_option: Path, typed: str, hint: str) -> None:
    done = subprocess.run(["make", typed], cwd=every_option, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert hint in done.stderr
    assert not (every_option / "HIT").exists()


@pytest.mark.parametrize("options", [[], ["-B"]], ids=["plain", "all made again"])
def test_make_does_not_take_its_own_files_for_unknown_targets(every_option: Path, options: list[str]) -> None:
    assert not (every_option / "local.mk").exists()
    done = subprocess.run(["make", *options, "help"], cwd=every_option, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "make run" in done.stdout, done.stderr
    assert not done.stderr
