"""The step to 2.0: projects of each 1.x release, with edits, under Copier and under the updater that they have."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
from conftest import ROOT
from releases import Releases, git, stand_in

sys.path.insert(0, str(ROOT / "hooks"))
from layout_2 import Layout
from names_2 import problems

PACKAGE = "flight_delays"
LAYOUT = Layout(PACKAGE)
UPDATER = """import os, sys
from pathlib import Path
project = Path.cwd()
sys.path.insert(0, str(project))
from ci import update
from ci.origin import MIRROR, Origin, address, answers
origin = Origin(address(project, str(answers(project)["_src_path"])), project / MIRROR)
old, new = update.choose(project, origin, sys.argv[1], {})
place = update.stage(project, "update/to-2")
outcome = update.apply(place, origin, old, new, "update/to-2", {}, trust=True)
print("conflicts:", sorted(outcome.conflicts), "kept:", sorted(outcome.kept))
"""

# ------------------------------------------------------------------------------------------------ Names, quickly


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("src/flight_delays/core/schema.py", "from ..api import Contract, Column\n", "from copier_mlops import Column, Contract\n"),
        ("src/flight_delays/core/features.py", "from .schema import CONTRACT\n", "from .schema import CONTRACT\n"),
        ("src/flight_delays/core/features.py", "from .mine import X\n", "from .core.mine import X\n"),
        ("src/flight_delays/io/source.py", "from ..core import schema\n", "from . import schema\n"),
        ("src/flight_delays/own.py", "from .core.schema import CONTRACT\n", "from .schema import CONTRACT\n"),
        ("a.py", "from flight_delays.core import metrics, schema\n", "from copier_mlops.evaluation import metrics\nfrom flight_delays import schema\n"),
        ("a.py", "from flight_delays.stages import review\n", "from copier_mlops.lifecycle import model_check as review\n"),
        ("a.py", "from flight_delays import ProjectError, own\n", "from copier_mlops import ProjectError\nfrom flight_delays import own\n"),
        ("a.py", "from flight_delays import project\n\nproject.predict(1)\n", "import copier_mlops as project\n\nproject.predict(1)\n"),
        ("a.py", "import flight_delays.core.schema\nflight_delays.core.schema.CONTRACT\n", "import flight_delays.schema\nflight_delays.schema.CONTRACT\n"),
        ("a.py", 'patch("flight_delays.io.registry.Registry")\n', 'patch("copier_mlops.registry.mlflow_registry.Registry")\n'),
        ("a.py", "from ci import merge\n", "from copier_mlops.updates import three_way_merge as merge\n"),
        ("a.py", "def f():\n    from flight_delays.core import schema; schema.x\n", "def f():\n    from flight_delays import schema; schema.x\n"),
        ("a.py", "from flight_delays.core import (\n", "from flight_delays.core import (\n"),
        ("tests/test_a.py", "from . import sample\n", "import sample\n"),
        ("local.mk", "\t$(BIN)/python -m $(PACKAGE).stages.review\n", "\t$(BIN)/python -m copier_mlops.lifecycle.model_check\n"),
        ("local.mk", "\t$(BIN)/python -m ci.audit\n", "\t$(BIN)/python -m copier_mlops.ci.security_scan\n"),
        ("local.mk", "\tcat src/$(PACKAGE)/core/schema.py ci/own.py\n", "\tcat src/$(PACKAGE)/schema.py ci/own.py\n"),
        ("prefect.yaml", "entrypoint: flight_delays.flows.train.train\n", "entrypoint: flight_delays.flow.train\n"),
        ("pipelines/a/dvc.yaml", "    cmd: flight_delays train\n", "    cmd: mlops train\n"),
        ("README.md", "src/flight_delays/core/contract.csv\n", "src/flight_delays/contract.csv\n"),
        ("README.md", "the contract is in `core/schema.py`\n", "the contract is in `schema.py`\n"),
    ],
)  # fmt: skip
def test_names(path: str, old: str, new: str) -> None:
    assert LAYOUT.file(path, old) == new
    later = LAYOUT.new_path(path) or path
    assert LAYOUT.file(later, new) == new  # a second time changes nothing


def test_every_module_has_its_file() -> None:
    runtime = ROOT / "template/src"
    for module in set(LAYOUT.modules.values()):
        if module.startswith("copier_mlops"):
            path = runtime.joinpath(*module.split("."))
            assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


def test_a_notebook() -> None:
    def cells(*lines: str) -> str:
        return json.dumps({"cells": [{"cell_type": "code", "source": list(lines)}]}, indent=1) + "\n"

    old = cells("%matplotlib inline\n", "from flight_delays.core.schema import CONTRACT\n", "!ls")
    assert LAYOUT.file("notebooks/a.ipynb", old) == cells("%matplotlib inline\n", "from flight_delays.schema import CONTRACT\n", "!ls")  # fmt: skip


def test_what_is_missing_is_listed(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/conftest.py").write_text("@pytest.fixture\ndef rows(): ...\n")
    own = {"tests/test_a.py": "from copier_mlops.data.tables import nothing\ndef test_a(rows, sample): ...\n"}
    fixtures = ROOT / "template/src/copier_mlops/testing/fixtures.py"
    assert problems(own, PACKAGE, ROOT / "template/src", tmp_path, fixtures, set()) == [
        "tests/test_a.py: copier_mlops.data.tables has no nothing",
        "tests/test_a.py: the fixture rows of the platform's tests is gone",
    ]


# --------------------------------------------------------------------------------------------- Whole projects


@pytest.fixture(scope="module")
def template(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with a tag on each release, the last one of them 2.0.0 as it stands."""
    clone = tmp_path_factory.mktemp("to-2") / "copier-mlops"
    git(clone.parent, "clone", "--quiet", str(releases.clone), str(clone))
    if "1.3.0" not in releases.versions:  # the last commit with the layout of 1.x
        moved = git(clone, "log", "-1", "--format=%H", "--diff-filter=D", "--", "template/ci/update.py")
        git(clone, "tag", "v1.3.0", f"{moved}^")
    assert stand_in(clone) == "2.0.0"
    return clone


def edited(template: Path, project: Path, version: str) -> Path:
    """A project of a release whose owner wrote into files of each kind."""
    copier.run_copy(str(template), project, defaults=True, quiet=True, vcs_ref=f"v{version}")
    package = project / "src" / PACKAGE

    def change(path: str, edit: Callable[[str], str]) -> None:
        (project / path).write_text(edit((project / path).read_text()))

    change(f"src/{PACKAGE}/core/features.py", lambda text: text + "\nMINE = True\n")
    change(f"src/{PACKAGE}/core/metrics.py", lambda text: text.replace("BINS = 10 ", "BINS = 12 "))
    change(f"src/{PACKAGE}/cli.py", lambda text: text.replace("code: int = 1", "code: int = 7"))
    change("tests/core/test_metrics.py", lambda text: text + "\n\ndef test_mine() -> None:\n    assert True\n")
    change("Makefile", lambda text: text + "\nmine: ## own\n\t@$(BIN)/python -m $(PACKAGE).stages.review\n")
    (package / "own.py").write_text("from .core.schema import CONTRACT\n\nNAMES = CONTRACT.inputs\n")
    (project / "tests/test_own.py").write_text(
        f"from {PACKAGE}.core.schema import CONTRACT\n\n\ndef test_own() -> None:\n    assert CONTRACT\n"
    )
    (project / "tests/test_lost.py").write_text("def test_lost(project) -> None:\n    assert project\n")
    git(project, "init", "--quiet")
    commit(project)
    return project


def commit(project: Path) -> None:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "as it is")


def holds(project: Path, answers: str) -> None:
    """What an update to 2.0 leaves of the edits above."""
    package = project / "src" / PACKAGE
    assert (package / "features.py").read_text().endswith("\nMINE = True\n")
    assert "from copier_mlops import Column, Contract\n" in (package / "schema.py").read_text()
    assert (package / "own.py").read_text().startswith("from .schema import CONTRACT\n")
    assert f"from {PACKAGE}.schema import CONTRACT" in (project / "tests/test_own.py").read_text()
    runtime = ROOT / "template/src/copier_mlops"
    merged = project / "src/copier_mlops/evaluation/metrics.py"
    assert merged.read_text() == (runtime / "evaluation/metrics.py").read_text().replace("BINS = 10 ", "BINS = 12 ")
    for path in runtime.rglob("*.py"):
        here = project / "src/copier_mlops" / path.relative_to(runtime)
        assert here == merged or here.read_bytes() == path.read_bytes(), here
    saved = {path.relative_to(project / ".update").as_posix() for path in (project / ".update").rglob("*.patch")}
    assert saved == {"src/copier_mlops/cli.py.patch", "tests/core/test_metrics.py.patch"}
    assert "+def test_mine() -> None:" in (project / ".update/tests/core/test_metrics.py.patch").read_text()
    assert "tests/test_lost.py: the fixture project" in (project / ".update/tests.md").read_text()
    assert "@$(BIN)/python -m copier_mlops.lifecycle.model_check" in (project / "Makefile").read_text()
    assert f"entrypoint: {PACKAGE}.flow.train" in (project / "prefect.yaml").read_text()
    left = [path for path in git(project, "ls-files").splitlines() if (project / path).exists()]
    old = [f"src/{PACKAGE}/{folder}/" for folder in ("core", "io", "stages", "flows")]
    assert not [path for path in left if path.startswith((*old, "ci/", "tests/core", "tests/ci"))]
    assert "<<<<<<<" not in "".join(path.read_text() for path in package.parent.rglob("*.py"))
    born = json.loads((project / "adoption.json").read_text())["files"]
    assert born[f"src/{PACKAGE}/schema.py"] == hashlib.sha256((package / "schema.py").read_bytes()).hexdigest()
    now = (project / ".copier-answers.yml").read_text().splitlines()
    assert [line for line in answers.splitlines() if line[0] != "_" and line not in now] == []


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0", "1.2.0", "1.3.0"])
def test_copier_itself(template: Path, tmp_path: Path, version: str) -> None:
    project = edited(template, tmp_path / "project", version)
    answers = (project / ".copier-answers.yml").read_text()
    words = [sys.executable, "-m", "copier", "update", "--quiet", "--defaults", "--trust", "--vcs-ref", "v2.0.0"]
    done = subprocess.run(words, cwd=project, check=False, capture_output=True, text=True)
    assert done.returncode != 0 and ".update/src/copier_mlops/cli.py.patch" in done.stderr, done.stderr
    holds(project, answers)
    assert not git(project, "ls-files", "--unmerged")
    if version == "1.2.0":  # a second update changes nothing
        commit(project)
        subprocess.run(words, cwd=project, check=True, capture_output=True)
        assert not git(project, "status", "--porcelain")


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0", "1.2.0", "1.3.0"])
def test_the_updater_of_the_project(template: Path, tmp_path: Path, version: str) -> None:
    project = edited(template, tmp_path / "project", version)
    answers = (project / ".copier-answers.yml").read_text()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", UPDATER, "v2.0.0"], cwd=project, env=environment, check=False, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "conflicts: [] kept: []" in done.stdout
    assert not git(project, "status", "--porcelain")
    place = project / ".cache/update/tree"
    holds(place, answers)
    assert not git(place, "status", "--porcelain")


@pytest.mark.parametrize("version", ["1.0.0", "1.3.0"])
def test_an_untouched_project_equals_a_new_one(template: Path, tmp_path: Path, version: str) -> None:
    project, fresh = tmp_path / "project", tmp_path / "fresh"
    copier.run_copy(str(template), project, defaults=True, quiet=True, vcs_ref=f"v{version}")
    copier.run_copy(str(template), fresh, defaults=True, quiet=True, vcs_ref="v2.0.0")
    git(project, "init", "--quiet")
    commit(project)
    subprocess.run([sys.executable, "-c", UPDATER, "v2.0.0"], cwd=project, check=True, capture_output=True)
    place = project / ".cache/update/tree"
    for path in (one for one in fresh.rglob("*") if one.is_file()):
        name = path.relative_to(fresh)
        if name.parts[0] not in (".copier-answers.yml", "notebooks"):
            assert (place / name).read_bytes() == path.read_bytes(), name
    extra = {*git(place, "ls-files").splitlines()} - {
        path.relative_to(fresh).as_posix() for path in fresh.rglob("*") if path.is_file()
    }
    assert not extra


def test_killed_after_the_index_was_written(template: Path, tmp_path: Path) -> None:
    """The index has the whole step, the files have nothing of it: the next run ends it."""
    project = edited(template, tmp_path / "project", "1.2.0")
    words = [sys.executable, str(template / "hooks/migrate.py"), "2.0.0"]
    planned = subprocess.run([*words, "--plan"], cwd=project, check=True, capture_output=True, text=True)
    assert "moves src/" in planned.stdout and not git(project, "status", "--porcelain")
    subprocess.run(words, cwd=project, check=True, capture_output=True)
    whole, index = files(project), git(project, "write-tree")
    assert not git(project, "diff", "--name-only")
    git(project, "stash", "--quiet")
    git(project, "read-tree", index)
    assert files(project) != whole
    subprocess.run(words, cwd=project, check=True, capture_output=True)
    assert files(project) == whole and git(project, "write-tree") == index
    subprocess.run(words, cwd=project, check=True, capture_output=True)
    assert files(project) == whole
    git(project, "reset", "--quiet", "--hard")  # one command takes it back
    assert not git(project, "status", "--porcelain")


def files(project: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in project.rglob("*") if path.is_file() and ".git" not in path.parts}
