"""The README is the test: its commands, word for word, from a clean clone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, Project
from pages import blocks

README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """The commands of the README's blocks, without their comments."""
    return [step.command for block in blocks(ROOT / "README.md") for step in block.steps]


def test_the_commands_are_few() -> None:
    assert commands()[:2] == ["make demo", "make test"]
    read = [line for line in README.splitlines() if not line.startswith(("```", "<!--"))]
    assert len(read) <= 80


def test_first_block_is_what_ci_runs(demo: Project) -> None:
    """`make demo` has run from a clean clone; `make test` is this test's own command, and CI's."""
    assert (demo / "champion.json").exists()
    assert "make test" in (ROOT / ".ci/run").read_text()
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo:.*##", makefile, re.M) and re.search(r"^test:.*##", makefile, re.M)


def test_second_block_renders_and_lists(template: Path, tmp_path: Path) -> None:
    """`copier copy <repository> my-project` without a question answered, then a project that knows its commands; that
    they work is what test_project.py is about."""
    copy, change, *rest = commands()[2:]
    assert copy == "uvx copier copy <repository> my-project" and change == "cd my-project"
    words = copy.removeprefix("uvx ").replace("<repository>", str(template)).split()
    place = Project(tmp_path)
    done = place.command(str(ROOT / ".venv/bin" / words[0]), *words[1:], "--defaults", "--vcs-ref", "HEAD")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trust" not in (done.stdout + done.stderr).lower()
    listed = Project(tmp_path / "my-project").make("help")
    assert rest[:2] == ["make run", "make test"] and rest[2].startswith("make adopt DATA=") and len(rest) == 3
    for line in rest:
        assert " ".join(line.split()[:2]) in listed


def test_a_machine_without_uv_copies_with_pip(template: Path, tmp_path: Path) -> None:
    """Python and nothing else: the alternative that the README gives for `uvx`."""
    install = re.search(r"`(python3 -m pip install copier)`", README)
    assert install and "`pipx run copier copy ...`" in README
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python3"
    subprocess.run([python, *install[1].split()[1:], "--quiet", "--disable-pip-version-check"], check=True)
    copier = tmp_path / "venv/bin/copier"
    words = ["copy", str(template), str(tmp_path / "project"), "--defaults", "--quiet", "--vcs-ref", "HEAD"]
    subprocess.run([copier, *words], check=True)
    assert (tmp_path / "project/Makefile").exists()


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"
