"""A release: what changed is held against the release before, then a version, its notes, a commit and a tag.

python ci/release.py refresh     move the known-good day in pyproject.toml and in the template to today
python ci/release.py check       say whether VERSION could be released as things stand; writes nothing
python ci/release.py publish     release VERSION: commit and tag; push and publish where GitHub's variables are set
"""

import datetime as dt
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
FILES = ("pyproject.toml", "template/pyproject.toml.jinja")
DAY = r'^exclude-newer = "[^"]+"'
VERSION = r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
LINE = r'^version = "([^"]+)"'
NOTES = "CHANGELOG.md"
TESTED = "docs/tested.md"  # `make test-all` writes it, the release takes it along
HEADS = ("What changes", "Which of your files move", "What to do by hand")
WHO = ("-c", "user.name=release", "-c", "user.email=release@localhost")


class ReleaseError(Exception):
    """There can be no release; the text says what is in the way and what to do, a line each."""


def git(root: Path, *words: str) -> str:
    """What git says; raises ReleaseError with its words if it fails."""
    done = subprocess.run(["git", *words], cwd=root, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        command = next(word for word in words if not word.startswith("-") and "=" not in word)  # no token in a message
        raise ReleaseError(f"git {command} failed: {done.stderr.strip()}")
    return done.stdout.strip()


# ------------------------------------------------------------------------------------------------- Which there are


def number(version: str) -> tuple[int, int, int]:
    """Its three parts.

    Raises:
        ReleaseError: If it has others.
    """
    found = re.fullmatch(VERSION, version)
    if not found:
        raise ReleaseError(f"{version!r} is no version; it looks like 1.4.0")
    return int(found[1]), int(found[2]), int(found[3])


def released(root: Path) -> dict[str, str]:
    """The commit of each release, oldest first: as tagged, else the commit that raised the version.

    What stood in pyproject.toml before 1.0.0 is no release.

    Raises:
        ReleaseError: If the history is not here.
    """
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        raise ReleaseError(
            "this clone is shallow: it has not the history in which the releases are. Do git fetch --unshallow --tags"
        )
    found: dict[str, str] = {}
    highest = (0, 9**9, 0)
    for commit in git(
        root, "log", "--first-parent", "-m", "--reverse", "--format=%H", "-G^version = ", "--", "pyproject.toml"
    ).split():
        line = re.search(LINE, git(root, "show", f"{commit}:pyproject.toml"), re.M)
        if line and re.fullmatch(VERSION, line[1]) and number(line[1]) > highest:
            highest, found[line[1]] = number(line[1]), commit
    for tag in git(root, "tag", "--list", "v*").split():
        if re.fullmatch(f"v{VERSION}", tag):
            found[tag[1:]] = git(root, "rev-list", "--max-count=1", tag)
    return dict(sorted(found.items(), key=lambda item: number(item[0])))


def successors(before: str) -> dict[str, str]:
    """The versions that may follow one, by the kind of the release."""
    if not before:
        return {"first": "1.0.0"}
    major, minor, patch = number(before)
    return {"patch": f"{major}.{minor}.{patch + 1}", "minor": f"{major}.{minor + 1}.0", "major": f"{major + 1}.0.0"}


# ------------------------------------------------------------------------------------------------------ The files


def refresh(root: Path, day: dt.date) -> None:
    """Write the day into both files.

    Raises:
        ReleaseError: If one of them names no day.
    """
    for name in FILES:
        file = root / name
        text, count = re.subn(
            DAY, f'exclude-newer = "{day:%Y-%m-%d}T00:00:00Z"', file.read_text(encoding="utf-8"), flags=re.M
        )
        if count != 1:
            raise ReleaseError(f"{name} names the known-good day {count} times, not once")
        file.write_text(text, encoding="utf-8")


def section(changelog: str, name: str) -> str:
    """What stands under a heading, without it; empty if it is not there."""
    found = re.search(rf"^## {re.escape(name)}(?: \([^)\n]*\))?\n(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    return found[1].strip() if found else ""


def with_version(text: str, version: str) -> str:
    """pyproject.toml with another version."""
    return re.sub(LINE, f'version = "{version}"', text, count=1, flags=re.M)


def with_notes(changelog: str, version: str, day: dt.date) -> str:
    """The changelog with what was unreleased under a version and its date."""
    return changelog.replace("## Unreleased\n", f"## Unreleased\n\n## {version} ({day:%Y-%m-%d})\n", 1)


def written(root: Path, version: str, day: dt.date) -> dict[str, str]:
    """The files of a release, as its commit has them."""
    own, notes = ((root / name).read_text(encoding="utf-8") for name in ("pyproject.toml", NOTES))
    done = not section(notes, "Unreleased") and section(notes, version)  # by a run that was stopped
    return {"pyproject.toml": with_version(own, version), NOTES: notes if done else with_notes(notes, version, day)}


def not_committed(root: Path, version: str, day: dt.date) -> list[str]:
    """Files that differ from the last commit by more than a release writes, or that git does not know."""

    def as_released(name: str, text: str) -> str:
        if name == "pyproject.toml":
            text = with_version(text, version)
        if name == NOTES and not section(text, version):
            text = with_notes(text, version, day)
        return re.sub(DAY, "", text, flags=re.M) if name in FILES else text

    differs = []
    for line in git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all").split("\0"):
        name = line.strip().partition(" ")[2].strip()
        if name in (*FILES, NOTES) and "D" not in line[:2]:
            pair = git(root, "show", f"HEAD:{name}"), (root / name).read_text(encoding="utf-8").strip()
            if len({as_released(name, text + "\n") for text in pair}) == 1:
                continue
        if name and name != TESTED:
            differs.append(name)
    return differs


# --------------------------------------------------------------------------------------------------- What it refuses


def problems(root: Path, version: str, day: dt.date) -> list[str]:
    """What is in the way of a release, a line each: first what is quick to see, then what an update shows."""
    before = list(released(root))
    kinds = successors(before[-1] if before else "")
    if number(version) and version not in kinds.values():
        choice = ", ".join(f"{one} ({kind})" if before else one for kind, one in kinds.items())
        after = f"after {before[-1]} comes one of" if before else "the first release is"
        return [f"{version} is not the next version: {after} {choice}"]
    found = [
        f"{name} is not committed: commit it, or put it away (git stash --include-untracked)"
        for name in not_committed(root, version, day)
    ]
    branch = git(root, "rev-parse", "--abbrev-ref", "HEAD")
    if branch != "main":
        found.append(f"this is {branch}: a release is cut on main, in whose history the next one looks for it")
    text = section((root / NOTES).read_text(encoding="utf-8"), "Unreleased") or section(
        (root / NOTES).read_text(encoding="utf-8"), version
    )
    if not text:
        found.append(f"{NOTES} says nothing under Unreleased: write there what a project's owner must know")
    found += [
        f"{NOTES} has no text under '### {head}' in Unreleased: write it, or 'None.'"
        for head in HEADS
        if text and not re.search(rf"^### {head}\n+(?!#)\S", text, re.M)
    ]
    found += _of_steps(root, version)
    if found:
        return found
    import compare  # it needs Copier, which a listing of releases does not

    with tempfile.TemporaryDirectory(prefix="release-") as place:
        clone = candidate(root, Path(place) / "copier-mlops", version, day)
        return compare.problems(clone, before[-1] if before else "", version, kinds, text, Path(place))


def _of_steps(root: Path, version: str) -> list[str]:
    """Where hooks/migrate.py and `_migrations` in copier.yml do not say the same."""
    steps = list(steps_of(root))
    settings = yaml.safe_load((root / "copier.yml").read_text(encoding="utf-8"))
    entries = [one for one in settings.get("_migrations") or [] if "'--after'" not in str(one.get("command"))]
    listed = [str(one.get("version")) for one in entries]
    found = [
        f"{one} has {'steps in hooks/migrate.py' if one in steps else 'an entry of _migrations in copier.yml'} only: "
        f"Copier runs what both name"
        for one in sorted({*steps} ^ {*listed})
    ]
    found += [
        f"the entry of _migrations for {name} does not run hooks/migrate.py {name} before the update: see docs/releasing.md"
        for name, one in zip(listed, entries, strict=True)
        if not str(one.get("command")).endswith(f"hooks/migrate.py', '{name}']") or "before" not in str(one.get("when"))
    ]
    later = [one for one in steps if number(one) > number(version)]
    found += [f"hooks/migrate.py has steps of {one}, which comes after {version}: name them {version}" for one in later]
    if listed != sorted(listed, key=number):
        found.append(
            "_migrations in copier.yml are not in the order of their versions, and Copier runs them as they stand"
        )
    return found


def steps_of(root: Path) -> dict[str, Callable[..., None]]:
    """The releases that hooks/migrate.py has steps for."""
    file = root / "hooks/migrate.py"
    table: dict[str, Callable[..., None]] = runpy.run_path(str(file))["RELEASES"] if file.exists() else {}
    return table


def candidate(root: Path, clone: Path, version: str, day: dt.date) -> Path:
    """A clone in which the release is made, and those before are tagged."""
    git(root, "clone", "--quiet", "--no-hardlinks", str(root), str(clone))
    for name in (*FILES, NOTES):
        shutil.copy2(root / name, clone / name)
    for one, commit in released(clone).items():
        if not git(clone, "tag", "--list", f"v{one}"):
            git(clone, "tag", f"v{one}", commit)
    cut(clone, version, day)
    return clone


# ------------------------------------------------------------------------------------------------------------ Cut


def cut(root: Path, version: str, day: dt.date) -> None:
    """The commit and the tag of a release, held against nothing."""
    for name, text in written(root, version, day).items():
        (root / name).write_text(text, encoding="utf-8")
    also = [TESTED] if (root / TESTED).exists() else []
    git(root, "add", "--", *FILES, NOTES, *also)
    named = subprocess.run(["git", "config", "user.email"], cwd=root, check=False, capture_output=True).returncode == 0
    git(root, *(() if named else WHO), "commit", "--quiet", "--no-verify", "--message", f"Release {version}")
    _tag(root, version, named)


def _tag(root: Path, version: str, named: bool) -> None:
    """Tag a release. `git describe` prefers an annotated tag over the plain ones that move, such as v1."""
    words = ("tag", "--annotate", "--no-sign", "--message", f"Release {version}", f"v{version}")
    git(root, *(() if named else WHO), *words)


def publish(root: Path, version: str, day: dt.date) -> str:
    """Commit, tag; push and publish where a repository is named. Returns what is left to do, empty if nothing.

    Stopped in the middle, it goes on where it was: the commit, the tag and the push are each there or not.

    Raises:
        ReleaseError: If it is refused, is there already, or cannot be sent.
    """
    tag, repository = f"v{version}", os.environ.get("GITHUB_REPOSITORY", "")
    number(version)
    here = re.search(LINE, (root / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    if git(root, "log", "-1", "--format=%s") != f"Release {version}" or not here or here[1] != version:
        if version in released(root):
            raise ReleaseError(f"{tag} is there already")
        found = problems(root, version, day)
        if found:
            raise ReleaseError("\n       ".join([f"{version} cannot be released:", *found]))
        cut(root, version, day)
    elif not git(root, "tag", "--list", tag):
        _tag(root, version, named=False)
    left = f"{tag} is committed and tagged here. What is left: git push --atomic origin main {tag}"
    token = os.environ.get("GITHUB_TOKEN", "")
    if not repository or not token:
        return left
    server = os.environ.get("GITHUB_SERVER_URL", "")
    header = ("-c", f"http.{server}/.extraheader=Authorization: Bearer {token}") if server else ()
    if git(root, *header, "ls-remote", "--tags", "origin", tag):
        raise ReleaseError(f"{tag} is there already")
    try:
        git(root, *header, "push", "--quiet", "--atomic", "origin", "HEAD", tag)
    except ReleaseError as error:
        raise ReleaseError(f"{error}. {left}; on a machine that goes away, do the release again") from None
    _publish_notes(repository, token, tag, section((root / NOTES).read_text(encoding="utf-8"), version))
    return ""


def _publish_notes(repository: str, token: str, tag: str, text: str) -> None:
    request = urllib.request.Request(
        f"{os.environ['GITHUB_API_URL']}/repos/{repository}/releases",
        data=json.dumps({"tag_name": tag, "name": tag, "body": text}).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60):
            return
    except (urllib.error.URLError, OSError) as error:
        raise ReleaseError(f"{tag} is pushed, but its notes are not published ({error}): do it on its page") from None


def main() -> int:
    """0 if it was done."""
    what, version, day = sys.argv[1:], os.environ.get("VERSION", ""), dt.datetime.now(dt.UTC).date()
    try:
        if what == ["refresh"]:
            refresh(ROOT, day)
        elif what == ["check"]:
            found = problems(ROOT, version, day)
            print("\n".join([f"{version} cannot be released:", *found]) if found else f"{version} can be released")
            return 1 if found else 0
        else:
            print(publish(ROOT, version, day) or f"v{version} is released")
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
