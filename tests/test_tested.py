"""The table of `make test-all`: it is whole however often the run was cut off."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tested
from releases import git

CONFTEST = """
from pathlib import Path
import tested
tested.ROOT = Path(__file__).parent.parent
tested.NOTES = tested.ROOT / ".cache/tested.jsonl"
def pytest_addoption(parser):
    parser.addoption("--table", type=Path)
def pytest_configure(config):
    config.pluginmanager.register(tested.Table(config.getoption("--table"), config), "table")
"""
SLOW = """
import time
def test_slow():
    time.sleep(60)
"""
TESTS = """
import pathlib, pytest
RAN = pathlib.Path(__file__).parent.parent / "ran"
@pytest.mark.parametrize("case", ["one", "two", "of two words"])
def test_good(case):
    RAN.open("a").write(case + ",")
def test_bad():
    assert pathlib.Path("well").exists()
@pytest.fixture
def broken():
    yield
    assert pathlib.Path("well").exists()
def test_that_leaves_a_mess(broken): ...
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for folder in ("tests", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tests/conftest.py").write_text(CONFTEST)
    (tmp_path / "tests/test_some.py").write_text(TESTS)
    (tmp_path / ".gitignore").write_text(".cache/\n__pycache__/\n.pytest_cache/\nran\nwell\n")
    shutil.copy2(tested.__file__, tmp_path / "tests")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    commit(tmp_path, "first")
    return tmp_path


def commit(repository: Path, name: str) -> None:
    """Of everything, called by a tag."""
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", name)
    git(repository, "tag", "--annotate", name, "--message", name)


def run(repository: Path, *words: str) -> tuple[int, str, str]:
    """How a run with that table ends, what it says, and the table."""
    said = [sys.executable, "-m", "pytest", "--rootdir=.", "-n", "2", "--table=docs/tested.md", *words]
    done = subprocess.run(said, cwd=repository, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr, (repository / "docs/tested.md").read_text()


def test_a_run_goes_on_where_it_was_cut_off(repository: Path) -> None:
    code, said, table = run(repository, "-k", "one")
    assert code == 0 and "4 cases did not run yet" in said and "5 cases, 1 passed (1 on first), 4 not run yet" in table
    code, said, table = run(repository)
    assert code == 1 and "not run yet" not in table and "5 cases, 3 passed (3 on first);" in table
    assert re.search(r"\| some \| good \| 2 \| 2 \| \d", table) and "| some | good: of two words | 1 | 1 |" in table
    assert "| some | bad | 1 | 0 |" in table and "| some | that leaves a mess | 1 | 0 |" in table
    notes = repository / ".cache/tested.jsonl"
    notes.write_text(notes.read_text() + '{"case": "tests/test_so')  # killed while it wrote
    (repository / "well").touch()
    code, said, table = run(repository)
    assert (
        code == 0 and "3 cases passed on this very tree before" in said and "5 cases, 5 passed (5 on first);" in table
    )
    assert (repository / "ran").read_text().count(",") == 3
    code, said, table = run(repository)
    assert (
        code == 0 and "5 cases, 5 passed (5 on first);" in table and "5 cases passed on this very tree before" in said
    )


def test_a_tree_that_changed_is_tested_anew(repository: Path) -> None:
    run(repository, "-k", "one")
    assert "5 cases, 3 passed (3 on first)" in run(repository)[2]
    (repository / "docs/benchmarks.md").write_text("what a run wrote")
    assert "2 cases" not in run(repository, "-k", "two")[1]
    (repository / "more").write_text("x")
    commit(repository, "second")
    assert "5 cases, 3 passed (2 on first, 1 on second)" in run(repository, "-k", "one")[2]
    assert (repository / "ran").read_text().split(",").count("one") == 2
    assert (repository / "ran").read_text().split(",").count("two") == 1


def test_an_interrupted_run_leaves_the_table(repository: Path) -> None:
    run(repository)
    before = (repository / "docs/tested.md").read_text()
    (repository / "tests/test_slow.py").write_text(SLOW)
    words = [sys.executable, "-m", "pytest", "--rootdir=.", "-v", "-n", "2", "--table=docs/tested.md"]
    child = subprocess.Popen(
        words, cwd=repository, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - a job in the background of a shell ignores it
    )  # fmt: skip
    assert child.stdout is not None
    while "test_slow.py::test_slow" not in child.stdout.readline():
        assert child.poll() is None
    os.killpg(child.pid, signal.SIGINT)
    assert "cut off: docs/tested.md is as it was" in child.communicate(timeout=30)[0] and child.returncode == 2
    assert (repository / "docs/tested.md").read_text() == before
