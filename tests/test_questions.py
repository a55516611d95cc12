"""The questions: few, with defaults that work, and answers that work or are refused with the remedy."""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
from pathlib import Path

import copier
import pytest
import yaml
from conftest import ROOT, Project, Render

QUESTIONS = {
    name: question
    for name, question in yaml.safe_load((ROOT / "copier.yml").read_text()).items()
    if not name.startswith("_")
}
ASKED = {name: question for name, question in QUESTIONS.items() if question.get("when") is not False}


def package_of(render: Render, name: str) -> str:
    return Project(render(project_name=name)).package


def test_few_questions_that_explain_themselves() -> None:
    assert len(ASKED) <= 12
    for name, question in ASKED.items():
        assert question["help"].strip(), name
        assert "default" in question, f"{name}: `copier copy --defaults` has to work"
        refuses = "choices" in question or "validator" in question or question["type"] == "bool"
        assert refuses, f"{name}: nothing refuses a bad answer"
        assert not question.get("secret"), f"{name}: secrets are never asked for"


def test_nothing_asks_for_trust() -> None:
    """A task, even one that never runs, makes Copier demand --trust."""
    settings = yaml.safe_load((ROOT / "copier.yml").read_text())
    assert not {"_tasks", "_jinja_extensions", "_migrations"} & set(settings)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("Flight delays", "flight_delays"),
        ("churn", "churn"),
        ("My-Project", "my_project"),
        ("  spaces  everywhere ", "spaces_everywhere"),
        ("3D printing", "project_3d_printing"),
        ("class", "class_project"),
        ("Match", "match_project"),
        ("json", "json_project"),
        ("Random", "random_project"),
        ("pandas", "pandas_project"),
        ("test", "test_project"),
        ("CON", "con_project"),
        ("Kill", "kill_project"),
        ("Python", "python_project"),
        ("Müller & Söhne: Größe", "mueller_soehne_groesse"),
        ("Prévision de l'été", "prevision_de_l_ete"),
        ("Łódź", "lodz"),
        ("日本 forecast", "forecast"),
        ('He said "yes"', "he_said_yes"),
        ("{{ jinja }}", "jinja"),
        ("a" * 80, "a" * 80),
    ],
)
def test_names_that_people_type(render: Render, name: str, package: str) -> None:
    assert package_of(render, name) == package
    assert package.isidentifier() and not keyword.iskeyword(package)


@pytest.mark.parametrize(
    ("answers", "remedy"),
    [
        ({"project_name": ""}, "at least one latin letter or digit"),
        ({"project_name": "   "}, "at least one latin letter or digit"),
        ({"project_name": "日本"}, "at least one latin letter or digit"),
        ({"project_name": "a" * 81}, "use 80 or fewer"),
        ({"project_name": "two\nlines"}, "one line of text"),
        ({"description": "two\nlines"}, "one line of 200 characters"),
        ({"author": " "}, "one line of 1 to 80 characters"),
        ({"owner": "no spaces"}, "letters, digits and inner dashes"),
        ({"owner": "-dash"}, "letters, digits and inner dashes"),
        ({"data_remote": ""}, "a folder such as"),
        ({"data_remote": "gs://bucket"}, "Only folders and s3://"),
        ({"data_remote": "S3://bucket"}, "Only folders and s3://"),
        ({"data_remote": "s3://Bucket_with_capitals"}, "Only folders and s3://"),
        ({"data_remote": "s3://user:key@bucket/path"}, "no user or password"),
        ({"problem": "clustering"}, "problem"),
        ({"licence": "WTFPL"}, "licence"),
        ({"package": "../../x"}, "leave it out and choose `project_name`"),
        ({"package": "json"}, "leave it out and choose `project_name`"),
        ({"distribution": "../y"}, "leave it out and choose `project_name`"),
        ({"target": 'a"b'}, "computed from `problem`"),
        ({"ships": True}, "computed from `deploy`"),
        ({"watches": True}, "computed from `monitoring`"),
    ],
)
def test_answers_that_cannot_work(template: Path, tmp_path: Path, answers: dict[str, str], remedy: str) -> None:
    with pytest.raises(Exception, match=re.escape(remedy)):
        copier.run_copy(str(template), tmp_path / "x", data=answers, defaults=True, quiet=True, vcs_ref="HEAD")
    assert not (tmp_path / "x").exists() or not any((tmp_path / "x").iterdir())


@pytest.mark.parametrize("kept", ["../../x", "/tmp/x", "a b", "a\nb"])
def test_a_package_name_of_the_answers_file_is_a_name(template: Path, tmp_path: Path, kept: str) -> None:
    folder = tmp_path / "a/b/project"
    copier.run_copy(str(template), folder, data={"made_as": kept}, defaults=True, quiet=True, vcs_ref="HEAD")
    assert [path.name for path in (folder / "src").iterdir()] == ["flight_delays"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_versions_of_copier_with_known_holes_are_refused() -> None:
    """9.9 wrote outside of the target, later ones had a trust bypass and a sandbox escape; 9.17.2 has none of them."""
    lowest = yaml.safe_load((ROOT / "copier.yml").read_text())["_min_copier_version"]
    assert [int(part) for part in lowest.split(".")] >= [9, 17, 2]
    floor = re.search(r'"copier>=([\d.]+)"', (ROOT / "template/pyproject.toml.jinja").read_text())
    assert floor and floor[1] == lowest


def taken_names() -> set[str]:
    """Return the names that no package gets."""
    text = (ROOT / "includes/names.jinja").read_text()
    blocks = re.findall(r"\{%- set (?:taken|commands) -%\}(.*?)\{%- endset -%\}", text, re.DOTALL)
    assert len(blocks) == 2
    return set(" ".join(blocks).split())


def test_no_package_hides_a_module_of_python(render: Render) -> None:
    """The list of taken names has every module of the running Python, and every keyword."""
    taken = taken_names()
    standard = {name.lower() for name in sys.stdlib_module_names if not name.startswith("_")}
    assert sorted(standard - taken) == []
    assert not {word.lower() for word in keyword.kwlist} - taken


def test_no_command_is_a_word_of_the_shell() -> None:
    """The stages of dvc.yaml call the package's command in a shell, which prefers its own words."""
    done = subprocess.run(["bash", "-c", "compgen -b; compgen -k"], capture_output=True, text=True, check=True)
    words = {word for word in done.stdout.split() if re.fullmatch(r"[a-z][a-z0-9_]*", word)}
    assert {"kill", "history", "then"} <= words
    assert sorted(words - taken_names()) == [], "add them to includes/names.jinja"


def test_no_command_replaces_one_of_a_dependency(small_environment: Path) -> None:
    """The list has the commands that are installed beside the package's own."""
    own = Project(small_environment).package
    names = {file.name for file in (small_environment / ".venv/bin").iterdir()} - {own}
    commands = {name for name in names if re.fullmatch(r"[a-z][a-z0-9_]*", name)}
    assert {"python", "dvc"} <= commands
    assert sorted(commands - taken_names()) == [], "add them to includes/names.jinja"


def test_no_package_hides_a_dependency(small_environment: Path) -> None:
    """The list has what is installed beside the package, whatever brought it."""
    taken = taken_names()
    listed = Project(small_environment).python(
        "import importlib.metadata as m; print(*(n.lower() for n in m.packages_distributions()))"
    )
    own = Project(small_environment).package
    names = {name for name in listed.split() if re.fullmatch(r"[a-z][a-z0-9_]*", name)} - {own}
    modules = {name for name in names if not name.endswith("__mypyc")}  # made by a compiler, another with each release
    assert sorted(modules - taken) == [], "add them to includes/names.jinja"
