"""What differs from the release that this project follows, whose it is, and what to do about it.

Updates apply what changed between two releases, so what once went another way stays so, unseen. This renders the project's own
release with its own answers and looks at everything.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copier_mlops.updates.upstream import (
    ANSWERS,
    MIRROR,
    OURS,
    SEED,
    YOURS,
    Origin,
    OriginError,
    Ownership,
    address,
    answers,
    edited_answers,
    files,
    run,
)

MANIFEST, LOCK = "pyproject.toml", "uv.lock"
LINES = (".gitignore", ".dvc/config")
"""Files whose further lines are anybody's: only a line of ours that is missing counts."""
FREE = ("project.dependencies", "project.optional-dependencies", "project.version", "project.urls", "project.keywords")
"""What pyproject.toml says for the user alone."""
LOSS = {"deleted": 3, "edited": 2, "unpinned": 3, "lock": 5, "marks": 10, "answers": 20, "outdated": 5}
"""Points of the score by the kind of a finding; those of `outdated` for each release."""
PINNED = r"@[0-9a-f]{40}(\s|$)"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the release has it.

    Attributes:
        kind: a key of `LOSS`.
        file: Which file it is in.
        says: What is wrong.
        remedy: What to do.
        counts: Whether it is a fault; what is only worth knowing is none.
    """

    kind: str
    file: str
    says: str
    remedy: str
    counts: bool = True


@dataclass(frozen=True)
class Report:
    """The state of a project.

    Attributes:
        release: The release that it follows.
        day: When that one was made.
        newest: The newest one.
        behind: How many releases lie between.
        score: 100 less the points of `LOSS` for each file with a fault and for each release that is missed.
        checked: How many things were looked at.
        findings: What is not.
    """

    release: str
    day: str
    newest: str
    behind: int
    score: int
    checked: int
    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        return not any(finding.counts for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "healthy": self.healthy}


def examine(project: Path, origin: Origin, uv: str = "uv") -> Report:
    """Look at a whole project.

    Args:
        project: Its folder.
        origin: Its template.
        uv: What asks whether packages have moved on; an empty text leaves that out.

    Raises:
        OriginError: If its release is unknown, or does not render with its answers.
    """
    given = answers(project)
    release, newest = origin.recorded(project), origin.newest()
    ownership = origin.ownership(release)
    with tempfile.TemporaryDirectory(prefix="doctor-") as scratch:
        origin.render(release, given, Path(scratch))
        rendered = [path for path in files(Path(scratch)) if path != ANSWERS]
        findings = [finding for path in rendered for finding in compare(project, Path(scratch), path, ownership)]
        findings += lock(project, Path(scratch), uv)
    steps = list(workflows(project))
    findings += [finding for finding in steps if finding is not None]
    findings += marks(project)
    findings += [
        Finding("answers", ANSWERS, text, "write the old answer back, commit it") for text in edited_answers(project)
    ]
    behind = len(origin.since(release, newest))
    if behind or (newest.commit != release.commit and not origin.releases):
        findings.append(
            Finding(
                "outdated", ANSWERS, f"{release.ref}; the newest is {newest.ref} of {newest.day}", "make update", False
            )
        )
    checked = sum(ownership.of(path) != SEED for path in rendered) + len(steps) + 2
    wrong = {(finding.kind, finding.file) for finding in findings if finding.counts}
    score = max(0, 100 - sum(LOSS[kind] for kind, _ in wrong) - LOSS["outdated"] * behind)
    return Report(release.ref, str(release.day), newest.ref, behind, score, checked, findings)


# --------------------------------------------------------------------------------------------------------- Files


def compare(project: Path, released: Path, path: str, ownership: Ownership) -> Iterator[Finding]:
    """What is to be said of one file that the release renders."""
    owner, here = ownership.of(path), project / path
    if owner == SEED:
        return
    if not here.is_file():
        told = "is not there, and the platform needs it" if owner == YOURS else "was deleted"
        yield Finding("deleted", path, f"{path} {told}", heal(path))
        return
    if owner != OURS or here.read_bytes() == (released / path).read_bytes():
        return
    ours, now = (place.read_text(encoding="utf-8", errors="replace") for place in (released / path, here))
    if path == MANIFEST:
        for difference in manifest(ours, now):
            yield Finding(
                "edited",
                path,
                f"{path}: {difference}",
                f"make update brings it back to the standard where you take it back: {heal(path, all_of_it=False)}",
            )
        return
    if path in LINES:
        missing = [line for line in ours.splitlines() if line.strip() and line not in now.splitlines()]
        if missing:
            yield Finding("edited", path, f"{path}: not there any more: {'; '.join(missing)}", heal(path))
        return
    place = ownership.place(path)
    added, removed = changes(ours, now)
    own = f"your own goes into {place}; then " if place else ""
    yield Finding("edited", path, f"{path} was edited (+{added} -{removed} lines)", f"{own}{heal(path)}")


def heal(path: str, all_of_it: bool = True) -> str:
    """The command that brings a file back as the release has it."""
    return f'make doctor HEAL="{path}"' if all_of_it else f"edit {path}"


def changes(before: str, after: str) -> tuple[int, int]:
    """How many lines came, and how many went."""
    import difflib

    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))[2:]
    return sum(line.startswith("+") for line in lines), sum(line.startswith("-") for line in lines)


def manifest(ours: str, now: str) -> Iterator[str]:
    """What pyproject.toml takes back of the release; what stands there for the user alone does not count."""
    try:
        here = flat(tomllib.loads(now))
    except tomllib.TOMLDecodeError as error:
        yield f"is no TOML ({error})"
        return
    for key, value in flat(tomllib.loads(ours)).items():
        if key.startswith(FREE):
            continue
        if isinstance(value, list):
            missing = [item for item in value if item not in here.get(key, [])]
            if missing:
                yield f"{key} lacks {', '.join(json.dumps(item) for item in missing)}"
        elif here.get(key) != value:
            yield f"{key} is {json.dumps(here.get(key))}, the release has {json.dumps(value)}"


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} as {'a.b': 1}."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


# -------------------------------------------------------------------------------------------------- What it runs


def workflows(project: Path) -> Iterator[Finding | None]:
    """For each action that a workflow uses, ours or the user's, whether it is pinned: None if it is."""
    for file in sorted(project.glob(".github/workflows/*.y*ml")):
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            used = re.match(r"\s*(?:-\s+)?uses:\s*(\S+.*)$", line)
            if not used or used[1].startswith("./"):
                continue
            path = file.relative_to(project).as_posix()
            action = used[1].split("#")[0].strip()
            yield None if re.search(PINNED, f"{action} ") else Finding(
                "unpinned", path, f"{path}:{number}: {action} is not pinned by a commit", "write the 40 digits of its commit, the version in a comment"
            )  # fmt: skip


def lock(project: Path, released: Path, uv: str) -> Iterator[Finding]:
    """Whether the packages are the known-good set of the release."""
    if not (project / LOCK).is_file():
        yield Finding("lock", LOCK, f"{LOCK} is not there", "make setup makes it; commit it")
        return
    try:
        wanted = tomllib.loads((released / MANIFEST).read_text(encoding="utf-8"))["tool"]["uv"]
        chosen = tomllib.loads((project / LOCK).read_text(encoding="utf-8")).get("options", {})
    except (tomllib.TOMLDecodeError, OSError) as error:
        yield Finding("lock", LOCK, f"{LOCK} cannot be read ({error})", "make lock")
        return
    if chosen.get("exclude-newer") != wanted["exclude-newer"]:
        told = f"{LOCK} is of {str(chosen.get('exclude-newer', 'no day'))[:10]}, the known-good day of the release is {wanted['exclude-newer'][:10]}"
        yield Finding("lock", LOCK, told, "make lock")
        return
    for name, day in sorted(chosen.get("exclude-newer-package", {}).items()):
        yield Finding(
            "lock",
            LOCK,
            f"{name} is taken up to {str(day)[:10]}, later than the known-good set",
            "take it out of pyproject.toml once the release has it",
            False,
        )
    if uv:
        yield from moved(project, uv)


def moved(project: Path, uv: str) -> Iterator[Finding]:
    """Packages that the known-good day would have in another version than the lock; says nothing where no index answers."""
    words = [uv, "lock", "--upgrade", "--dry-run", "--no-progress"]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        yield Finding(
            "lock",
            LOCK,
            f"nobody could look whether {LOCK} is the known-good set ({last.strip()})",
            "make lock, where the package index answers",
            False,
        )
        return
    other = re.findall(r"^(?:Update|Add|Remove) (\S+)(.*)$", done.stderr + done.stdout, re.M)
    if other:
        listed = ", ".join(f"{name}{what}".strip() for name, what in other[:5])
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        yield Finding("lock", LOCK, f"{LOCK} is off the known-good set: {listed}{more}", "make lock")


def marks(project: Path) -> Iterator[Finding]:
    """What an update left that nobody decided."""
    named = run("git", "grep", "-lE", "^(<{7}|>{7}) ", at=project, fails=True).splitlines()
    left = run(
        "git", "ls-files", "--cached", "--others", "--exclude-standard", "*.rej", at=project, fails=True
    ).splitlines()
    for path in named:
        yield Finding("marks", path, f"{path} has marks of a conflict", "decide between both sides, take the marks out")
    for path in left:
        yield Finding(
            "marks", path, f"{path} is what an update could not place", "bring it in by hand, delete the file"
        )


# ------------------------------------------------------------------------------------------------------ Commands


def origin_of(project: Path) -> Origin:
    """Return the template that a project follows.

    Raises:
        OriginError: If the project does not say which.
    """
    origin = Origin(address(project, str(answers(project)["_src_path"])), project / MIRROR)
    if origin.note:
        print(f"note: {origin.note}", file=sys.stderr)
    return origin


def bring_back(project: Path, origin: Origin, wanted: list[str]) -> None:
    """Write files as the release has them.

    Raises:
        OriginError: If the release has no such file, or git does not have what would be written over.
    """
    given = answers(project)
    release = origin.recorded(project)
    with tempfile.TemporaryDirectory(prefix="doctor-") as scratch:
        origin.render(release, given, Path(scratch))
        unknown = [path for path in wanted if not (Path(scratch) / path).is_file()]
        if unknown:
            raise OriginError(f"{release.ref} has no {', '.join(unknown)}")
        dirty = run("git", "status", "--porcelain", "--", *wanted, at=project)
        dirty = "\n".join(line for line in dirty.splitlines() if line[1] != "D" and line[0] != "D")
        if dirty:
            raise OriginError(f"these are not committed, so they are not written over:\n{dirty}")
        for path in wanted:
            file = project / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes((Path(scratch) / path).read_bytes())
            file.chmod((Path(scratch) / path).stat().st_mode)
            print(f"{path} is as {release.ref} has it; git diff shows what went")


def show(report: Report) -> None:
    """The report, for people."""
    behind = f", {report.behind} behind {report.newest}" if report.behind else ", the newest"
    print(f"{report.release} of {report.day}{behind}; score {report.score} of 100, {report.checked} things looked at")
    for kind in dict.fromkeys(finding.kind for finding in report.findings):
        print(f"\n{kind}")
        for finding in (one for one in report.findings if one.kind == kind):
            print(f"  {finding.says}\n      {finding.remedy}")
    if not report.findings:
        print("everything is as it has to be")
