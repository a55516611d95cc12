"""Releases for tests: those of the history, tagged in a clone of the work tree, and one that has not happened yet."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "ci"))
import release  # noqa: E402

DAY = dt.date(2030, 1, 31)
WHO = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
SKIPPED = "NOT RUN: what updates from the releases before; "


def git(folder: Path, *words: str) -> str:
    """What git says; its own complaint is shown where it fails."""
    done = subprocess.run(["git", *WHO, *words], cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Releases:
    """A clone of the template with its history and a tag on each release.

    Attributes:
        clone: Its HEAD is the work tree as it stands, committed or not.
        versions: The commit of each release, oldest first.
    """

    clone: Path
    versions: dict[str, str]

    @property
    def refs(self) -> list[str]:
        """Where a project may come from: the tag of each release, and the commit before HEAD."""
        here = git(self.clone, "rev-parse", "HEAD")
        tags = [f"v{version}" for version, commit in self.versions.items() if commit != here]
        there = subprocess.run(["git", "rev-parse", "--verify", "--quiet", "HEAD~1"], cwd=self.clone, check=False, capture_output=True)  # fmt: skip
        return [*tags, *(["HEAD~1"] if there.returncode == 0 else [])]


def missing(root: Path = ROOT) -> str:
    """Why there is no history to find releases in; empty if there is one."""
    if not (root / ".git").exists():
        return SKIPPED + "this copy of the template has no .git"
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        return SKIPPED + "this clone is shallow. Do git fetch --unshallow --tags (in CI: fetch-depth: 0)"
    return ""


def clone_with_releases(clone: Path, root: Path = ROOT) -> Releases:
    """Clone with all history, put the work tree on top, tag what is not tagged."""
    git(root, "clone", "--quiet", "--no-hardlinks", str(root), str(clone))
    listed = git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for path in clone.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in filter(None, listed):
        if (root / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, clone / name)
    git(clone, "add", "--all")
    if git(clone, "status", "--porcelain"):
        git(clone, "commit", "--quiet", "--message", "work tree")
    return tagged(clone)


def tagged(clone: Path) -> Releases:
    """The releases of a clone, each with its tag."""
    versions = release.released(clone)
    for version, commit in versions.items():
        if not git(clone, "tag", "--list", f"v{version}"):
            git(clone, "tag", f"v{version}", commit)
    return Releases(clone, versions)


# ----------------------------------------------------------------------------------------------------- The future


@dataclass(frozen=True)
class Future:
    """A release that has not happened, after one that is today's work tree.

    Attributes:
        clone: The template, both releases tagged.
        before: Tag of the work tree as it stands.
        tag: Tag of the release to come, a major one.
        moved: A file of the user's: its path before, and after.
        deleted: A file of ours that is gone.
        added: A file of ours that is new.
        renamed: A question: its name before, and after.
    """

    clone: Path
    before: str
    tag: str
    moved: tuple[str, str] = ("tests/sample.py", "tests/rows_to_learn_from.py")
    deleted: str = ".github/dependabot.yml"
    added: str = "docs/after-the-update.md"
    renamed: tuple[str, str] = ("owner", "organisation")

    @property
    def version(self) -> str:
        return self.tag.removeprefix("v")


def future(releases: Releases, place: Path, lock: Path | None = None) -> Future:
    """Make a release in a clone of a clone: everything that a release may do to a project, and the project still runs.

    Args:
        releases: The clone with today's work tree.
        place: Where the template with both releases is to stand.
        lock: A project's uv.lock: every floor is raised to the oldest it has. Without it, `>=1.2` becomes `>=1.2.0`: another
            text, the same meaning.
    """
    git(releases.clone, "clone", "--quiet", str(releases.clone), str(place))
    before = stand_in(place)
    tag = f"v{release.successors(before)['major']}"
    made = Future(place, f"v{before}", tag)
    steps = [
        f"tree.move({made.moved[0]!r}, {made.moved[1]!r})",
        f"tree.replace('adoption.json', {made.moved[0]!r}, {made.moved[1]!r})",
        f"tree.rename_answer({made.renamed[0]!r}, {made.renamed[1]!r})",
    ]
    add_steps(place, made.version, steps)
    for file in _template(place):
        _replace(file, must=False, texts={
            made.moved[0]: made.moved[1],
            "from tests import sample;": "from tests import rows_to_learn_from as sample;",
            "from . import sample\n": "from . import rows_to_learn_from as sample\n",
        })  # fmt: skip
    for file in list((place / "template/tests").glob("*sample.py*")):
        git(place, "mv", str(file), str(file.with_name(file.name.replace("sample.py", "rows_to_learn_from.py"))))
    _replace(place / "template/adoption.json.jinja", {"when('sample.py')": "when('rows_to_learn_from.py')"})
    _replace(
        place / "copier.yml",
        {made.moved[0]: made.moved[1], "\nowner:": "\norganisation:", "if not owner ": "if not organisation "},
    )
    _replace(place / "docs/ownership.md", {made.moved[0]: made.moved[1]})
    (place / "template" / made.deleted).unlink()
    (place / "template" / made.added).parent.mkdir(exist_ok=True)
    (place / "template" / made.added).write_text("# After the update\n\nThis came with it.\n")
    raise_floors(place / "template/pyproject.toml.jinja", lock)
    _replace(
        place / "template/Makefile.jinja",
        {"## run the tests with the coverage gate;": "## run all tests with the coverage gate;"},
    )
    _replace(place / "template/README.md.jinja", {"make test     # the tests": "make test     # all tests"})
    _replace(place / "template/.github/workflows/ci.yml", {"timeout-minutes: 30": "timeout-minutes: 40"})
    unreleased(place, f"{made.moved[0]} moves to {made.moved[1]}.")
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message", "What comes next")
    release.cut(place, made.version, DAY)
    return made


def stand_in(clone: Path) -> str:
    """The version of what stands at HEAD: its own, or the one that would be next, cut here."""
    versions = tagged(clone).versions
    here = [version for version, commit in versions.items() if commit == git(clone, "rev-parse", "HEAD")]
    if here:
        return here[0]
    kinds = release.successors(next(reversed(versions), ""))
    ahead = [version for version in release.steps_of(clone) if version in kinds.values()]
    version = ahead[0] if ahead else kinds.get("minor") or kinds["first"]
    unreleased(clone, "None.")
    git(clone, "add", "--all")
    release.cut(clone, version, DAY)
    return version


def hooks_without_steps(folder: Path) -> None:
    """Copy hooks/migrate.py into a made-up template, without the steps of this template's own releases."""
    text = (ROOT / "hooks/migrate.py").read_text()
    text, count = re.subn(r"^((?:RELEASES|AFTER): .* = \{\n)(?:    .*\n)*\}", r"\1}", text, flags=re.M)
    assert count == 2
    (folder / "hooks").mkdir(exist_ok=True)
    (folder / "hooks/migrate.py").write_text(text)


def add_steps(clone: Path, version: str, steps: list[str]) -> None:
    """Give a release steps, and the entry of `_migrations` that runs them."""
    function = f"to_{version.replace('.', '_')}"
    body = "\n".join(f"    {step}" for step in steps)
    _replace(clone / "hooks/migrate.py", {
        "\nRELEASES: ": f'\n\ndef {function}(tree: Tree) -> None:\n    """What moves in {version}."""\n{body}\n\n\nRELEASES: ',
        "[Tree], None]] = {\n": f'[Tree], None]] = {{\n    "{version}": {function},\n',
    })  # fmt: skip
    entry = f"""  - version: "{version}"
    when: "{{{{ _stage == 'before' }}}}"
    command: ["{{{{ _copier_python }}}}", "{{{{ _copier_conf.src_path }}}}/hooks/migrate.py", "{version}"]
"""
    file = clone / "copier.yml"
    before, _, after = file.read_text().partition("\n_migrations:\n")
    older = re.match(r"(?:  .*\n)*", after)
    assert older
    file.write_text(f"{before}\n_migrations:\n{older[0]}{entry}{after[older.end() :]}")


def unreleased(clone: Path, moves: str) -> None:
    """Fill in the changelog of a release."""
    file = clone / release.NOTES
    heads = zip(release.HEADS, ("This and that.", moves, "None."), strict=True)
    text = "\n\n".join(f"### {head}\n\n{said}" for head, said in heads)
    head, _, rest = file.read_text().partition("## Unreleased\n")
    older = re.search(r"^## .*", rest, re.M | re.S)
    file.write_text(f"{head}## Unreleased\n\n{text}\n" + (f"\n{older[0]}" if older else ""))


def raise_floors(file: Path, lock: Path | None = None) -> None:
    """Raise the floor under every package that is asked for."""
    locked: dict[str, Version] = {}
    for one in tomllib.loads(lock.read_text())["package"] if lock else []:
        version = Version(one.get("version", "0"))  # a lock has several of a package that differs between Pythons
        locked[one["name"]] = min(version, locked.get(one["name"], version))

    def raised(match: re.Match[str]) -> str:
        name, extra, floor = match.groups()
        return f'"{name}{extra}>={locked.get(name) or floor + ".0"}"'

    text = file.read_text()
    text, count = re.subn(r'"([a-z0-9-]+)((?:\[s3\]|\{%[^"]*%\})?)>=([\d.]+)"', raised, text)
    assert count > 20, f"{count} floors found in {file}"
    file.write_text(text)


def _template(clone: Path) -> list[Path]:
    return [path for folder in ("template", "includes") for path in (clone / folder).rglob("*") if path.is_file()]


def _replace(file: Path, texts: dict[str, str], must: bool = True) -> None:
    """Put texts in the place of others, each of which has to be there if `must`."""
    text = file.read_text()
    for old, new in texts.items():
        assert old in text or not must, f"{file} has no {old!r}"
        text = text.replace(old, new)
    file.write_text(text)
