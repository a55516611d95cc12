"""The template's own releases, and the canary that notices when the world moves on."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
from conftest import ROOT, GitHub, Project
from releases import Releases, add_steps, clone_with_releases, future, git, hooks_without_steps, missing, unreleased

sys.path.insert(0, str(ROOT / "ci"))
import canary
import compare
import release

TODAY = dt.date(2030, 1, 31)


@pytest.fixture(autouse=True)
def _there(github: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner's own variables lead to the stand-in."""
    monkeypatch.setenv("GITHUB_API_URL", github.address)
    monkeypatch.setenv("GITHUB_REPOSITORY", "ada/copier-mlops")
    monkeypatch.setenv("GITHUB_TOKEN", "made-on-the-spot")
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)


SETTINGS = """_subdirectory: template
_templates_suffix: .jinja
_answers_file: .copier-answers.yml
_exclude: ["{% if _copier_operation == 'update' %}seeds{% endif %}"]
_skip_if_exists: [params.yaml, "src/*/core/schema.py"]
_message_before_copy: ""

owner: {type: str, default: ada}
colour: {type: str, choices: [red, green, blue], default: red}
ways:
  type: str
  multiselect: true
  choices: {By road: road, By rail: rail, By both: both}
  default: []
  validator: "{% if 'both' in ways and 'road' not in ways %}Both is road and rail{% endif %}"
package: {type: str, default: flights, when: false}
"""
API = 'Column, Table = 1, 2\n__all__ = ["Column", "Table"]\n'


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clone of a bare repository: a template of few files that could be released."""
    bare, clone = tmp_path / "bare.git", tmp_path / "clone"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch", "main", str(bare))
    subprocess.run(["git", "clone", "--quiet", str(bare), str(clone)], check=True, capture_output=True)
    files = {
        "CHANGELOG.md": "# Changelog\n\n## Unreleased\n",
        "copier.yml": SETTINGS,
        "template/.copier-answers.yml.jinja": "{{ _copier_answers|to_nice_yaml }}",
        "template/params.yaml.jinja": "for: {{ owner }}\n",
        "template/src/{{package}}/cli.py": "",
        "template/src/{{package}}/api.py": API,
        "template/src/{{package}}/core/schema.py": "from ..api import Table\n",
        "template/seeds/one.txt": "once\n",
        "pyproject.toml": '[project]\nversion = "0.1.0"\n\n[tool.uv]\nexclude-newer = "2029-01-31T00:00:00Z"\n',
        "template/pyproject.toml.jinja": '[tool.uv]\nexclude-newer = "2029-01-31T00:00:00Z"\n# mlflow>=3\n',
        "template/Makefile": "help:\n",
    }
    for name, text in files.items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(text)
    hooks_without_steps(clone)
    git(clone, "checkout", "--quiet", "-B", "main")
    unreleased(clone, "None.")
    commit(clone)
    git(clone, "push", "--quiet", "origin", "main")
    return clone


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "a change")


def change(repository: Path, *texts: tuple[str, str, str], moves: str = "None.") -> None:
    """Change texts in files, fill in the changelog, commit."""
    for name, old, new in texts:
        file = repository / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    unreleased(repository, moves)
    commit(repository)


@pytest.fixture
def first(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That template with its first release, on a machine that publishes nothing."""
    monkeypatch.delenv("GITHUB_TOKEN")
    release.cut(repository, "1.0.0", TODAY)
    return repository


# ---------------------------------------------------------------------------------------------------- It is cut


def test_a_release_moves_the_day_and_tells_what_changed(repository: Path, github: GitHub) -> None:
    release.refresh(repository, TODAY)
    (repository / "docs").mkdir()
    (repository / "docs/tested.md").write_text("all of it\n")
    assert release.publish(repository, "1.0.0", TODAY) == ""
    bare = repository.parent / "bare.git"
    assert git(bare, "tag") == "v1.0.0" and git(bare, "rev-parse", "main") == git(bare, "rev-parse", "v1.0.0^{commit}")
    assert git(bare, "cat-file", "-t", "v1.0.0") == "tag", (
        "git describe may choose v1 where the release has no annotated tag"
    )
    shown = git(bare, "show", "main:pyproject.toml")
    assert 'exclude-newer = "2030-01-31T00:00:00Z"' in shown and '\nversion = "1.0.0"\n' in shown
    assert "2030-01-31" in git(bare, "show", "main:template/pyproject.toml.jinja")
    assert git(bare, "show", "main:docs/tested.md") == "all of it"
    assert "## Unreleased\n\n## 1.0.0 (2030-01-31)\n\n### What changes" in git(bare, "show", "main:CHANGELOG.md")
    assert git(bare, "log", "-1", "--format=%s", "main") == "Release 1.0.0"
    assert not git(repository, "status", "--porcelain")
    path, body = github.written[0]
    assert path == "/repos/ada/copier-mlops/releases" and body["tag_name"] == "v1.0.0"
    assert body["body"].startswith("### What changes\n\nThis and that.")
    with pytest.raises(release.ReleaseError, match=r"v1\.0\.0 is there already"):
        release.publish(repository, "1.0.0", TODAY)


def test_on_a_laptop_it_says_what_to_push(first: Path, github: GitHub) -> None:
    git(first, "tag", "--delete", "v1.0.0")
    git(first, "reset", "--quiet", "--hard", "HEAD~1")
    release.publish(first, "1.0.0", TODAY)
    assert release.publish(first, "1.0.0", TODAY).endswith("git push --atomic origin main v1.0.0")
    assert git(first, "tag") == "v1.0.0" and not git(first.parent / "bare.git", "tag") and not github.written
    change(first, ("template/Makefile", "help", "other"))
    release.publish(first, "1.0.1", TODAY)
    with pytest.raises(release.ReleaseError, match=r"v1\.0\.0 is there already"):
        release.publish(first, "1.0.0", TODAY)


@pytest.mark.parametrize("stop", ["add", "commit", "tag", "ls-remote", "push"])
def test_stopped_in_the_middle_it_goes_on(
    repository: Path, github: GitHub, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    real = release.git

    def stopped(root: Path, *words: str) -> str:
        if root == repository and stop in words and words[-1] != "v*":
            raise KeyboardInterrupt
        return real(root, *words)

    release.refresh(repository, TODAY)
    monkeypatch.setattr(release, "git", stopped)
    with pytest.raises(KeyboardInterrupt):
        release.publish(repository, "1.0.0", TODAY)
    assert not github.written
    monkeypatch.setattr(release, "git", real)
    assert release.publish(repository, "1.0.0", TODAY) == ""
    bare = repository.parent / "bare.git"
    assert git(bare, "rev-parse", "main") == git(bare, "rev-parse", "v1.0.0^{commit}") and len(github.written) == 1
    assert git(bare, "rev-list", "--count", "main") == "2"
    assert git(bare, "show", "main:CHANGELOG.md").count("## 1.0.0") == 1


def test_what_cannot_be_sent_says_what_is_left(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = repository.parent / "other"
    subprocess.run(["git", "clone", "--quiet", str(repository.parent / "bare.git"), str(other)], check=True)
    commit(other)
    git(other, "push", "--quiet", "origin", "main")
    with pytest.raises(release.ReleaseError, match=r"(?s)push failed.*committed and tagged here.*git push --atomic"):
        release.publish(repository, "1.0.0", TODAY)
    git(repository, "pull", "--quiet", "--rebase", "origin", "main")
    git(repository, "tag", "--force", "v1.0.0")
    monkeypatch.setenv("GITHUB_API_URL", "http://127.0.0.1:9")
    with pytest.raises(release.ReleaseError, match="is pushed, but its notes are not published"):
        release.publish(repository, "1.0.0", TODAY)


# ------------------------------------------------------------------------------------------------- It is refused


def unclean(repository: Path) -> None:
    (repository / "template/new.txt").touch()
    (repository / "template/Makefile").write_text("edited:\n")


def more_than_the_day(repository: Path) -> None:
    release.refresh(repository, TODAY)
    file = repository / "template/pyproject.toml.jinja"
    file.write_text(file.read_text().replace("mlflow>=3", "mlflow>=4"))


def nothing_to_say(repository: Path) -> None:
    (repository / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 0.9.0\n\nOlder.\n")
    commit(repository)


def half_of_it(repository: Path) -> None:
    file = repository / "CHANGELOG.md"
    file.write_text(file.read_text().replace("### What to do by hand\n\nNone.\n", "### What to do by hand\n"))
    commit(repository)


def elsewhere(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "-b", "idea")


def steps_alone(repository: Path) -> None:
    add_steps(repository, "1.0.0", ["pass"])
    (repository / "copier.yml").write_text(SETTINGS)
    commit(repository)


def entry_alone(repository: Path) -> None:
    text = (repository / "hooks/migrate.py").read_text()
    add_steps(repository, "1.0.0", ["pass"])
    (repository / "hooks/migrate.py").write_text(text)
    commit(repository)


def wrong_entry(repository: Path) -> None:
    add_steps(repository, "1.0.0", ["pass"])
    change(repository, ("copier.yml", "'before'", "'after'"))


def too_early(repository: Path) -> None:
    add_steps(repository, "2.0.0", ["pass"])
    commit(repository)


def out_of_order(repository: Path) -> None:
    add_steps(repository, "1.0.0", ["pass"])
    add_steps(repository, "0.9.0", ["pass"])
    commit(repository)


def optional_file(repository: Path) -> None:
    (repository / "template/params.yaml.jinja").rename(
        repository / "template/{% if colour != 'blue' %}params.yaml{% endif %}.jinja"
    )
    commit(repository)


def optional_seed(repository: Path) -> None:
    folder = repository / "template/seeds"
    (folder / "one.txt").rename(folder / "{% if owner == 'ada' %}one.txt{% endif %}")
    commit(repository)


def optional_of_several(repository: Path) -> None:
    (repository / "template/params.yaml.jinja").rename(
        repository / "template/{% if 'rail' not in ways %}params.yaml{% endif %}.jinja"
    )
    commit(repository)


def optional_of_all(repository: Path) -> None:
    (repository / "template/params.yaml.jinja").rename(
        repository / "template/{% if 'both' not in ways %}params.yaml{% endif %}.jinja"
    )
    commit(repository)


def does_not_render(repository: Path) -> None:
    change(repository, ("template/params.yaml.jinja", "{{ owner }}", "{{ owner.nothing.more }}"))


@pytest.mark.parametrize(
    ("spoil", "version", "says"),
    [
        (None, "1.4.0", "1.4.0 is not the next version: the first release is 1.0.0"),
        (None, "v1.0.0", "is no version"),
        (None, "", "is no version"),
        (None, "1.0.0; id", "is no version"),
        (None, "01.0.0", "is no version"),
        (unclean, "1.0.0", "template/Makefile is not committed.*template/new.txt is not committed: commit it, or put"),
        (more_than_the_day, "1.0.0", r"template/pyproject\.toml\.jinja is not committed"),
        (nothing_to_say, "1.0.0", "says nothing under Unreleased"),
        (half_of_it, "1.0.0", "no text under '### What to do by hand'"),
        (elsewhere, "1.0.0", "this is idea: a release is cut on main"),
        (steps_alone, "1.0.0", r"1\.0\.0 has steps in hooks/migrate\.py only"),
        (entry_alone, "1.0.0", r"1\.0\.0 has an entry of _migrations in copier\.yml only"),
        (wrong_entry, "1.0.0", r"for 1\.0\.0 does not run hooks/migrate\.py 1\.0\.0 before the update"),
        (too_early, "1.0.0", r"steps of 2\.0\.0, which comes after 1\.0\.0"),
        (out_of_order, "1.0.0", "not in the order of their versions"),
        (optional_file, "1.0.0", "params.yaml is the user's, and whether it is there depends on colour=blue"),
        (optional_seed, "1.0.0", "seeds/one.txt is the user's, and whether it is there depends on .*owner=adax"),
        (
            optional_of_several,
            "1.0.0",
            r"params.yaml is the user's, and whether it is there depends on ways=\['rail'\]",
        ),
        (optional_of_all, "1.0.0", r"whether it is there depends on ways=\['road', 'rail', 'both'\]"),
        (does_not_render, "1.0.0", "cannot be rendered with the defaults"),
    ],
)
def test_what_is_no_release_is_refused_and_nothing_written(
    repository: Path, github: GitHub, spoil: Callable[[Path], None] | None, version: str, says: str
) -> None:
    if spoil:
        spoil(repository)
    before = git(repository, "rev-parse", "HEAD"), git(repository, "status", "--porcelain")
    with pytest.raises(release.ReleaseError, match=f"(?s){says}"):
        release.publish(repository, version, TODAY)
    assert (git(repository, "rev-parse", "HEAD"), git(repository, "status", "--porcelain")) == before
    assert not github.written and not git(repository, "tag")


BREAKING = [
    ("copier.yml", "src/*/core/schema.py", "src/*/contract/schema.py"),
    ("copier.yml", "owner:", "organisation:"),
    ("copier.yml", "[red, green, blue], default: red", "[red, green], default: green"),
    ("template/src/{{package}}/api.py", "Table", "Frame"),
    ("template/params.yaml.jinja", "owner", "organisation"),
]
STEPS = [
    'tree.move("src/{package}/core/schema.py", "src/{package}/contract/schema.py")',
    'tree.replace("src/{package}/contract/schema.py", "import Table", "import Frame")',
    'tree.replace("params.yaml", "import Table", "import Frame")',
    'tree.rename_answer("owner", "organisation")',
]
TOLD = "core/schema.py moves to contract/schema.py."


def break_it(repository: Path) -> None:
    """What a release may only do if it takes every project along."""
    source = repository / "template/src/{{package}}"
    (source / "contract").mkdir()
    (source / "core/schema.py").rename(source / "contract/schema.py")
    change(repository, *BREAKING, ("template/src/{{package}}/contract/schema.py", "Table", "Frame"), moves=TOLD)


def refused(repository: Path, version: str) -> str:
    with pytest.raises(release.ReleaseError) as error:
        release.publish(repository, version, TODAY)
    return str(error.value)


@pytest.mark.parametrize("version", ["1.0.1", "2.0.0"])
def test_what_breaks_a_project_is_refused_without_steps(first: Path, version: str) -> None:
    break_it(first)
    said = refused(first, version)
    assert "src/{package}/core/schema.py is the user's in 1.0.0, and what they wrote there is gone" in said
    assert "question owner of 1.0.0 is gone, and no other has its answer 'adax'" in said
    assert "question colour had the default 'red' in 1.0.0 and has 'green' now" in said
    assert "question colour was answered 'blue' in 1.0.0 and is answered 'green'" in said
    assert ("Table is gone from api.py" in said) is (version == "1.0.1")  # else in a file that is gone itself
    assert ("question organisation is new: that is a minor release, 1.1.0" in said) is (version == "1.0.1")


@pytest.mark.long
def test_with_steps_it_is_a_major_release(first: Path) -> None:
    break_it(first)
    change(first, ("copier.yml", "[red, green]", "[red, green, blue]"), moves=TOLD)
    add_steps(first, "1.1.0", STEPS)
    commit(first)
    said = refused(first, "1.1.0")
    assert (
        "src/{package}/core/schema.py moves to src/{package}/contract/schema.py: a path of the user's moves with a major"
        in said
    )
    assert "Table is gone from api.py" in said and said.count("\n") == 2
    for name in ("hooks/migrate.py", "copier.yml"):
        (first / name).write_text((first / name).read_text().replace("1.1.0", "2.0.0"))
    change(first, moves="None.")
    assert "CHANGELOG.md does not say that src/{package}/core/schema.py moves to" in refused(first, "2.0.0")
    change(first, moves=TOLD)
    release.publish(first, "2.0.0", TODAY)
    assert git(first, "tag").split() == ["v1.0.0", "v2.0.0"]


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ('(tree.root / "params.yaml").open("a").write("#\\n")', "the plan of the steps of 2.0.0 changes the project"),
        ('tree.plan or (tree.root / "params.yaml").open("a").write("#\\n")', "change more when they run again"),
        ('tree.move("src", "there")', "the steps of 2.0.0 fail on a project of 1.0.0 .*src is a folder"),
        ("tree.nothing_like_it()", "the steps of 2.0.0 fail on a project of 1.0.0 .*AttributeError"),
        ('tree.rename_answer("colour", "hue")', ""),
    ],
)
def test_steps_are_tried(first: Path, tmp_path: Path, step: str, says: str) -> None:
    add_steps(first, "2.0.0", [step])
    commit(first)
    clone = release.candidate(first, tmp_path / "candidate", "2.0.0", TODAY)
    found, there = compare.tried(clone, "1.0.0", "2.0.0", tmp_path / "project")
    assert there and re.search(says, "".join(found), re.S) and bool(found) is bool(says)


def test_steps_that_do_too_little_are_refused(first: Path) -> None:
    break_it(first)
    change(first, ("copier.yml", "[red, green]", "[red, green, blue]"), moves=TOLD)
    add_steps(first, "2.0.0", STEPS[:1])
    commit(first)
    said = refused(first, "2.0.0")
    assert "Table is gone from api.py" in said and "question owner of 1.0.0 is gone" in said and said.count("\n") == 2


def test_a_file_that_is_no_longer_the_users(first: Path) -> None:
    change(first, ("copier.yml", "[params.yaml, ", "["))
    assert "params.yaml is the user's in 1.0.0, and no longer in 1.1.0: put it into _skip_if_exists" in refused(
        first, "1.1.0"
    )


def test_the_numbers_that_may_follow(first: Path) -> None:
    change(first, ("copier.yml", "package:", "size: {type: int, default: 3}\npackage:"))
    for version in ("1.0.0", "1.0.2", "1.2.0", "3.0.0", "0.9.0"):
        assert (
            "is there already" in (said := refused(first, version))
            or "1.0.1 (patch), 1.1.0 (minor), 2.0.0 (major)" in said
        )
    assert "1.0.1 is a patch, and question size is new: that is a minor release, 1.1.0" in refused(first, "1.0.1")
    release.publish(first, "1.1.0", TODAY)


# ------------------------------------------------------------------------------------------- Found in the history


def test_releases_are_found_without_tags(first: Path, tmp_path: Path) -> None:
    change(first, ("template/Makefile", "help", "other"))
    release.publish(first, "1.0.1", TODAY)
    one, two = (git(first, "rev-parse", f"{tag}^{{commit}}") for tag in ("v1.0.0", "v1.0.1"))
    git(first, "tag", "--delete", "v1.0.0", "v1.0.1")
    git(first, "revert", "--no-edit", "HEAD")
    git(first, "checkout", "--quiet", "-b", "side", "HEAD~1")
    change(first, ("pyproject.toml", '"1.0.1"', '"1.9.0"'))
    change(first, ("pyproject.toml", '"1.9.0"', '"1.0.1"'))
    git(first, "checkout", "--quiet", "main")
    git(first, "merge", "--quiet", "--no-edit", "--strategy-option", "ours", "side")
    assert release.released(first) == {"1.0.0": one, "1.0.1": two}
    assert "after 1.0.1 comes one of 1.0.2 (patch)" in refused(first, "1.0.1" + "0")
    (first / "template/Makefile").write_text("not_committed:\n")
    made = clone_with_releases(tmp_path / "releases", first)
    assert made.versions == {"1.0.0": one, "1.0.1": two} and made.refs == ["v1.0.0", "v1.0.1", "HEAD~1"]
    assert git(made.clone, "rev-parse", "v1.0.1^{commit}") == two
    assert git(made.clone, "show", "HEAD:template/Makefile") == "not_committed:"
    assert not git(made.clone, "status", "--porcelain") and not git(first, "tag")


def test_a_shallow_clone_is_no_place_to_release_from(first: Path, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{first}", str(shallow))
    with pytest.raises(release.ReleaseError, match=r"shallow.*git fetch --unshallow"):
        release.publish(shallow, "1.0.1", TODAY)
    assert "NOT RUN" in missing(shallow) and "fetch-depth: 0" in missing(shallow) and not missing(first)


@pytest.mark.long
def test_this_template_can_take_its_projects_to_a_release_to_come(releases: Releases, tmp_path: Path) -> None:
    """What a release may do at most, made of today's template, held against all that is refused."""
    made = future(releases, tmp_path / "copier-mlops")
    git(made.clone, "tag", "--delete", made.tag)
    git(made.clone, "checkout", "--quiet", "-B", "main", "HEAD~1")
    assert release.problems(made.clone, made.version, TODAY) == []


@pytest.mark.long
def test_a_project_of_the_release_to_come_works(releases: Releases, small_environment: Path, tmp_path: Path) -> None:
    made = future(releases, tmp_path / "copier-mlops", small_environment / "uv.lock")
    copier.run_copy(str(made.clone), tmp_path / "project", defaults=True, quiet=True, vcs_ref=made.tag)
    project = Project(tmp_path / "project")
    for target in ("setup", "check", "test"):
        project.make(target)


def test_a_file_without_a_day_is_named(repository: Path) -> None:
    (repository / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(release.ReleaseError, match=r"pyproject\.toml names the known-good day 0 times"):
        release.refresh(repository, TODAY)


# ------------------------------------------------------------------------------------------------------ The canary


@pytest.fixture
def world(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for the canary, and a make that notes what it was asked for; what FAIL names fails."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "make").write_text(
        f'#!/bin/sh\necho "$3" >> {tmp_path}/asked\ngrep -c "^exclude-newer = " "$2/pyproject.toml" > {tmp_path}/constrained\n'
        '[ "$3" != "$FAIL" ] || { echo "TypeError: no such thing any more"; exit 1; }\n'
    )
    (tools / "make").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(canary, "ROOT", template)
    monkeypatch.setattr(canary, "PLACE", tmp_path / "project")
    monkeypatch.setattr(canary, "LOG", tmp_path / "canary.log")
    return tmp_path


def test_the_canary_sings_where_everything_works(world: Path) -> None:
    copier = (str(Path(sys.executable).with_name("copier")),)
    assert canary.watch(copier) == 0
    assert (world / "asked").read_text().split() == ["setup", "check", "test", "run"]
    assert (world / "constrained").read_text().strip() == "0"


def test_the_canary_falls_and_tells_once(
    world: Path, github: GitHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAIL", "test")
    monkeypatch.setenv("RUN", "http://here/runs/1")
    assert canary.watch((str(Path(sys.executable).with_name("copier")),)) == 1
    assert (world / "asked").read_text().split() == ["setup", "check", "test"]
    assert "no such thing any more" in capsys.readouterr().err
    assert canary.tell() == 0
    github.open = [{"title": "another", "number": 3}, {"title": canary.TITLE, "number": 5}]
    assert canary.tell() == 0
    (first, issue), (second, comment) = github.written
    assert first == "/repos/ada/copier-mlops/issues" and issue["title"] == canary.TITLE
    assert second == "/repos/ada/copier-mlops/issues/5/comments"
    assert "no such thing any more" in issue["body"] and "http://here/runs/1" in comment["body"]
