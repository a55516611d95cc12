"""Many projects: who follows which release and how far from the standard, and an update for all of them, in waves.

python ci/fleet.py status projects.txt
python ci/fleet.py update projects.txt [--ref v1.2.0] [--waves "1 5"] [--checks "check"] [--trust] [--plan]

A line of projects.txt is a folder or a git address; what follows a # is a comment.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACE = ROOT / ".cache/fleet"

sys.path.insert(0, str(ROOT / "template"))  # the projects' own code
from ci.origin import Origin, OriginError  # noqa: E402

from ci import doctor, origin, update  # type: ignore[attr-defined]  # noqa: E402

WORKERS = os.cpu_count() or 1
BEARABLE = 1 / 3  # of a wave may fail before the next ones are left alone


@dataclass(frozen=True)
class Member:
    """A project of the fleet.

    Attributes:
        name: How the table calls it.
        where: The line of the list.
        folder: Its folder; None if it is a git address.
    """

    name: str
    where: str
    folder: Path | None

    @property
    def clone(self) -> Path:
        return PLACE / "clones" / f"{self.name}-{hashlib.sha256(self.where.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Row:
    """A line of the table: a value for each of its columns, and whether all is well."""

    cells: dict[str, str]
    well: bool


def members(listed: Path) -> list[Member]:
    """The projects of a list.

    Raises:
        OriginError: If there is no list, it is empty, or a line names nothing.
    """
    if not listed.is_file():
        raise OriginError(
            f"{listed} is not there; it lists a project a line, a folder or a git address: PROJECTS=projects.txt"
        )
    found = []
    for number, line in enumerate(listed.read_text(encoding="utf-8").splitlines(), 1):
        where = re.sub(r"(^|\s)#.*", "", line).strip()
        if not where:
            continue
        remote = "://" in where or re.match(r"[\w.-]+@[\w.-]+:", where)
        folder = None if remote else (listed.parent / Path(where).expanduser()).resolve()
        if folder is not None and not folder.is_dir():
            raise OriginError(f"{listed}:{number}: there is no folder {folder}")
        name = re.split(r"[/:]", where.rstrip("/").removesuffix(".git"))[-1]
        bare = folder is not None and (folder / "HEAD").is_file() and not (folder / ".git").exists()
        found.append(
            Member(name.removesuffix(".git") or where, str(folder) if bare else where, None if bare else folder)
        )
    if not found:
        raise OriginError(f"{listed} names no project")
    return found


def at_hand(member: Member) -> Path:
    """A folder with the project's last commit: its own, or a fresh clone of its address."""
    if member.folder is not None:
        return member.folder
    shutil.rmtree(member.clone, ignore_errors=True)
    member.clone.parent.mkdir(parents=True, exist_ok=True)
    origin.run("git", "clone", "--quiet", "--", member.where, str(member.clone), at=ROOT)
    return member.clone


def template(project: Path) -> Origin:
    """The template that a project follows; one mirror for all projects that follow the same."""
    url = origin.address(project, str(origin.answers(project)["_src_path"]))
    return Origin(url, PLACE / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}.git")


# -------------------------------------------------------------------------------------------------------- Status


def status(member: Member) -> Row:
    """Where one project stands."""
    cells = {"project": member.name, "release": "", "of": "", "behind": "", "age in days": "", "score": "", "to do": ""}
    try:
        report = doctor.examine(at_hand(member), template(at_hand(member) if member.folder else member.clone), uv="")
    except OriginError as error:
        return Row({**cells, "to do": str(error).splitlines()[0]}, well=False)
    age = (dt.date.today() - dt.date.fromisoformat(report.day)).days
    kinds = [finding.kind for finding in report.findings]
    todo = ", ".join(
        f"{kinds.count(kind)} {kind}" if kind != "outdated" else "make update" for kind in dict.fromkeys(kinds)
    )
    facts = {
        "release": report.release,
        "of": report.day,
        "behind": str(report.behind),
        "age in days": str(age),
        "score": str(report.score),
    }
    return Row({**cells, **facts, "to do": todo}, well=report.healthy)


# -------------------------------------------------------------------------------------------------------- Update


def bring(member: Member, options: argparse.Namespace) -> Row:
    """Update one project on a branch, check it, push it where it has a remote."""
    begun = time.monotonic()
    cells = {"project": member.name, "before": "", "after": "", "files": "", "result": "", "branch": "", "seconds": ""}

    def row(result: str, well: bool) -> Row:
        return Row({**cells, "result": result, "seconds": f"{time.monotonic() - begun:.0f}"}, well)

    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(KeyboardInterrupt):
        return _bring(member, options, cells, row)
    return row("stopped", False)


def _bring(member: Member, options: argparse.Namespace, cells: dict[str, str], row: Callable[[str, bool], Row]) -> Row:
    try:
        project = at_hand(member)
        update.clean(project)
        source = template(project)
        cells["before"] = str(origin.answers(project)["_commit"])
        chosen = update.choose(project, source, options.ref, options.given)
        if chosen is None:
            return row("nothing to do", True)
        old, new = chosen
        cells["after"] = new.ref
        branch = f"update/{new.ref}" if new.commit != old.commit else f"answers/{'-'.join(options.given)}"
        update.free(project, branch)
        with update.staged(project, branch) as place:
            outcome = update.apply(place, source, old, new, branch, options.given, options.trust)
            cells["files"] = str(outcome.changed)
            if outcome.conflicts:
                return row(f"to decide: {', '.join(outcome.conflicts)}", False)
            if options.plan:
                return row("would be updated", True)
            failed = update.finish(project, place, new.ref, options.targets)
            state = update.State(update.head(project), update.tip(project, "HEAD"), branch, new.ref)
            if member.folder is not None:
                update.take(project, place, state)
            cells["branch"] = branch
            if failed:
                return row(failed.splitlines()[0], False)
            pushed = update.push(project, place, branch)
        return row("updated, pushed" if pushed else "updated, no remote", True)
    except (OriginError, OSError) as error:
        return row(str(error).splitlines()[0], False)


def waves(projects: Sequence[Member], sizes: Sequence[int]) -> Iterator[list[Member]]:
    """The projects in groups of these sizes; the last group takes all that are left."""
    at = 0
    for size in sizes:
        if at < len(projects):
            yield list(projects[at : at + size])
        at += size
    if at < len(projects):
        yield list(projects[at:])


def bring_all(projects: Sequence[Member], options: argparse.Namespace) -> list[Row]:
    """Update a fleet, wave after wave, as long as the waves go well."""
    rows: list[Row] = []
    groups = list(waves(projects, [int(size) for size in options.waves.split()]))
    os.environ.setdefault("MYPY_CACHE_DIR", str(PLACE / "mypy"))  # types of the same packages are read once for all
    with ProcessPoolExecutor(WORKERS) as pool:
        for number, group in enumerate(groups):
            told = list(pool.map(bring, group, [options] * len(group)))
            rows += told
            bad = sum(not row.well for row in told)
            left = [member for later in groups[number + 1 :] for member in later]
            if bad > BEARABLE * len(group) and left and not options.force:
                print(
                    f"wave {number + 1}: {bad} of {len(group)} did not go well; {len(left)} projects are left alone",
                    file=sys.stderr,
                )
                rows += [
                    Row({**dict.fromkeys(told[0].cells, ""), "project": one.name, "result": "left alone"}, False)
                    for one in left
                ]
                break
    return rows


# ------------------------------------------------------------------------------------------------------ Commands


def table(rows: Sequence[Row]) -> str:
    """The rows as a table of Markdown, which a terminal shows as well."""
    names = list(rows[0].cells)
    lines = [names, *([row.cells[name].replace("|", "/") for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Many projects of this template.")
    parser.add_argument("command", choices=["status", "update"])
    parser.add_argument("projects", type=Path, help="a list, a folder or a git address a line")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument(
        "--waves", default="1 5", help="how many projects in each wave; the last takes all that are left"
    )
    parser.add_argument("--force", action="store_true", help="go on after a wave that did not go well")
    options, rest = parser.parse_known_args(words)
    given = update.parse(["--checks", "check", *rest])
    return argparse.Namespace(**{**vars(given), **vars(options)})


def main() -> int:
    """0 if all is well, 1 if a project needs somebody."""
    options = parse(sys.argv[1:])
    try:
        projects = members(options.projects)
        if options.command == "status":
            ask: Callable[[Member], Row] = status
            with ProcessPoolExecutor(WORKERS) as pool:
                rows = list(pool.map(ask, projects))
        else:
            rows = bring_all(projects, options)
    except OriginError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([{**row.cells, "well": row.well} for row in rows], indent=2))
    else:
        print(table(rows))
    well = sum(row.well for row in rows)
    print(f"{well} of {len(rows)} are well", file=sys.stderr)
    return 0 if well == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
