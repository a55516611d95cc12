"""Many projects: the release and the score of each, and an update for all of them, in waves.

python ci/fleet.py status projects.txt
python ci/fleet.py update projects.txt [--ref v1.2.0] [--waves "1 5"] [--checks "check"] [--trust] [--plan]

A line of projects.txt is a folder or a git address. [pilot] after it puts the project into the first wave; [hold] or
[hold: reason] excludes it from updates. The text after a # is a comment.
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
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PLACE = ROOT / ".cache/fleet"

sys.path.insert(0, str(ROOT / "template"))  # the projects' own code
from ci.comment import LONGEST, CommentError, call  # noqa: E402
from ci.origin import Origin, OriginError  # noqa: E402

from ci import doctor, origin, update  # type: ignore[attr-defined]  # noqa: E402

WORKERS = os.cpu_count() or 1
MAX_FAILED_SHARE = 1 / 3
"""Share of a wave that may fail before the next waves are canceled."""
TOKENS = ("FLEET_TOKEN", "GITHUB_TOKEN")
TOKEN_FD = "FLEET_TOKEN_FD"
MARK = r"\s\[(pilot|hold)(?::\s*([^\]]*))?\]"


@dataclass(frozen=True)
class Member:
    """A project of the fleet.

    Attributes:
        name: its name in the table.
        where: its address in the list.
        folder: its folder; None for a git address.
        pilot: whether it belongs to the first wave.
        held: the reason why it is held back; empty if it is not.
    """

    name: str
    where: str
    folder: Path | None
    pilot: bool = False
    held: str = ""

    @property
    def key(self) -> str:
        """A unique name for the files of this project."""
        return f"{self.name}-{hashlib.sha256(str(self.folder or self.where).encode()).hexdigest()[:8]}"

    @property
    def clone(self) -> Path:
        return PLACE / "clones" / self.key

    @property
    def log(self) -> Path:
        return PLACE / "logs" / f"{self.key}.log"

    @property
    def record(self) -> Path:
        """The last update that passed, as JSON: its commit and its checks."""
        return PLACE / "passed" / f"{self.key}.json"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        cells: a value for each column.
        well: whether the project needs no action.
        blocked: whether the project's own state keeps it from an update; such a project does not stop a wave.
        reason: the whole reason, of which the table shows the first line.
        log: the file with the output of the update.
        pull_request: the address of its pull request.
    """

    cells: dict[str, str]
    well: bool
    blocked: bool = False
    reason: str = ""
    log: str = ""
    pull_request: str = ""

    def as_json(self) -> dict[str, object]:
        more = {"reason": self.reason, "log": self.log, "pull_request": self.pull_request}
        return {**self.cells, "well": self.well, **more}


def members(listed: Path) -> list[Member]:
    """The projects of a list.

    Raises:
        OriginError: If there is no list, it is empty, or a line names nothing or a project that another line names.
    """
    if not listed.is_file():
        raise OriginError(
            f"{listed} is not there; it lists a project a line, a folder or a git address: PROJECTS=projects.txt"
        )
    found: list[Member] = []
    lines: dict[str, int] = {}
    errors = []
    for number, line in enumerate(listed.read_text(encoding="utf-8").splitlines(), 1):
        text = re.sub(r"(^|\s)#.*", "", line).rstrip()
        marks = dict(re.findall(MARK, text))
        where = re.sub(MARK, "", text).strip()
        if not where:
            continue
        remote = "://" in where or re.match(r"[\w.-]+@[\w.-]+:", where)
        folder = None if remote else (listed.parent / Path(where).expanduser()).resolve()
        if folder is not None and not folder.is_dir():
            marks_known = "; the marks are [pilot] and [hold: reason]" if "[" in where else ""
            errors.append(f"{listed}:{number}: there is no folder {folder}{marks_known}")
            continue
        first = lines.setdefault(str(folder or where.rstrip("/").removesuffix(".git")), number)
        if first != number:
            errors.append(f"{listed}:{number}: line {first} names the same project; remove one of them")
            continue
        name = re.split(r"[/:]", where.rstrip("/").removesuffix(".git"))[-1]
        bare = folder is not None and (folder / "HEAD").is_file() and not (folder / ".git").exists()
        found.append(
            Member(
                name.removesuffix(".git") or where,
                str(folder) if bare else where,
                None if bare else folder,
                "pilot" in marks,
                (marks["hold"] or "no reason given") if "hold" in marks else "",
            )
        )
    if errors:
        raise OriginError("\n".join(errors))
    if not found:
        raise OriginError(f"{listed} names no project")
    return found


def at_hand(member: Member) -> Path:
    """A folder with the project's last commit: its own, or a fresh clone of its address."""
    if member.folder is not None:
        if not (member.folder / ".git").exists():
            raise OriginError(f"{member.folder} is no git repository of its own; `make setup` in it makes it one")
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
    except (OriginError, OSError) as error:
        return Row({**cells, "to do": first_line(error)}, well=False, reason=str(error))
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
    if member.held:
        todo = ", ".join(filter(None, [f"held back: {member.held}", todo]))
    return Row({**cells, **facts, "to do": todo}, well=report.healthy)


def first_line(text: object) -> str:
    return next(iter(str(text).splitlines()), "")


# -------------------------------------------------------------------------------------------------------- Update


def bring(member: Member, options: argparse.Namespace) -> Row:
    """Update one project on a branch, check it, push it where it has a remote; its output goes into its log."""
    begun = time.monotonic()
    cells = {"project": member.name, "before": "", "after": "", "files": "", "result": "", "branch": "", "seconds": ""}
    if member.held:
        return Row({**cells, "result": f"held back: {member.held}"}, well=True, blocked=True, reason=member.held)
    member.log.parent.mkdir(parents=True, exist_ok=True)
    row = Row(cells, well=False, reason="stopped")
    with member.log.open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        try:
            row = _bring(member, options, cells)
        except KeyboardInterrupt:
            pass
        except (OriginError, CommentError, OSError) as error:
            row = replace(row, reason=str(error), blocked=isinstance(error, BlockedError))
        print(f"{row.cells['result']}\n{row.reason}".strip())
    result = row.cells["result"] or first_line(row.reason)
    seconds = f"{time.monotonic() - begun:.0f}"
    return replace(row, cells={**row.cells, "result": result, "seconds": seconds}, log=str(member.log))


class BlockedError(OriginError):  # type: ignore[misc]
    """The project's own state keeps it from an update."""


def _bring(member: Member, options: argparse.Namespace, cells: dict[str, str]) -> Row:
    project = at_hand(member)
    try:
        update.clean(project, options.plan)
    except OriginError as error:
        raise BlockedError(str(error)) from error
    source = template(project)
    cells["before"] = str(origin.answers(project)["_commit"])
    chosen = update.choose(project, source, options.ref, options.given)
    if source.note:
        print(f"note: {source.note}")
    if chosen is None:
        return Row({**cells, "result": "nothing to do"}, well=True)
    old, new = chosen
    cells["after"] = new.ref
    branch = f"update/{new.ref}" if new.commit != old.commit else f"answers/{'-'.join(options.given)}"
    if finished(member, project, source, branch, new, options):
        row = Row({**cells, "result": "done already", "branch": branch}, well=True)
        return row if options.plan else _propose(row, project, branch, new.ref, "", options.token)
    try:
        update.free(project, branch)
    except OriginError as error:
        raise BlockedError(str(error)) from error
    with update.staged(project, branch) as place:
        outcome = update.apply(place, source, old, new, branch, options.given, options.trust)
        update.show(outcome)
        cells["files"] = str(outcome.changed)
        if outcome.conflicts:
            reason = f"to decide:\n{update.decisions(outcome.conflicts)}"
            return Row({**cells, "result": f"to decide: {', '.join(outcome.conflicts)}"}, well=False, reason=reason)
        update.collisions(project, place, outcome.start)
        if options.plan:
            return Row({**cells, "result": "would be updated"}, well=True, reason="\n".join(outcome.notes()))
        failed = update.finish(project, place, new.ref, options.targets)
        checks = project / update.CHECKS
        print(checks.read_text(encoding="utf-8", errors="replace") if checks.exists() else "")
        state = update.State(update.head(project), update.tip(project, "HEAD"), branch, new.ref)
        if member.folder is not None:
            update.take(project, place, state)
        cells["branch"] = branch
        if failed:
            return Row({**cells, "result": first_line(failed)}, well=False, reason=failed)
        pushed = update.push(project, place, branch)
        member.record.parent.mkdir(parents=True, exist_ok=True)
        passed = {"commit": update.tip(place, "HEAD"), "checks": options.targets}
        member.record.write_text(json.dumps(passed), encoding="utf-8")
    result = "updated, pushed" if pushed else "updated, no remote"
    row = Row({**cells, "result": result}, well=True, reason="\n".join(outcome.notes()))
    return _propose(row, project, branch, new.ref, _text(outcome, options.targets), options.token)


def finished(
    member: Member, project: Path, source: Origin, branch: str, new: origin.Release, options: argparse.Namespace
) -> bool:
    """Whether an earlier run made this update of the project's last commit, and its checks passed.

    A branch that was pushed has passed. A person may have added commits to it.
    """
    remote = update.git(project, "remote", "get-url", "origin", fails=True).strip()
    if remote:
        there = update.git(project, "ls-remote", "--heads", remote, f"refs/heads/{branch}", fails=True).split()
        if not there:
            return False
        update.git(project, "fetch", "--quiet", "--no-tags", "--", remote, branch)
    commit = there[0] if remote else update.tip(project, branch)
    passed = json.loads(member.record.read_text(encoding="utf-8")) if member.record.is_file() else {}
    if not commit or not (remote or passed.get("commit") == commit):
        return False
    if passed.get("commit") == commit and not set(options.targets) <= set(passed["checks"]):
        return False
    base = update.git(project, "merge-base", "HEAD", commit, fails=True).strip()
    if base != update.tip(project, "HEAD"):
        return False
    known = yaml.safe_load(update.git(project, "show", f"{commit}:{origin.ANSWERS}", fails=True)) or {}
    wanted = {"_commit": new.ref, **update.understood(source.questions(new), options.given)}
    return all(known.get(name) == value for name, value in wanted.items())


def _text(outcome: update.Outcome, checks: Sequence[str]) -> str:
    """The text of a pull request."""
    notes = "".join(f"\n- {note}" for note in outcome.notes())
    passed = f"Passed: {', '.join(f'`make {check}`' for check in checks)}."
    return f"{outcome.changelog}\n\n{passed}\n{notes}\n\n```\n{outcome.stat[-20_000:]}\n```\n".strip()[:LONGEST]


def _propose(row: Row, project: Path, branch: str, release: str, body: str, token: str) -> Row:
    """Open or renew the pull request of a pushed branch if a token is given; without a body keep an open one as it is.

    Raises:
        CommentError: If GitHub refuses.
    """
    address = update.git(project, "config", "remote.origin.url", fails=True).strip()
    found = re.search(r"(?:^|[/@])([\w.-]+)[:/]([^/:]+/[^/:]+?)(?:\.git)?/?$", address)
    api = os.environ.get("GITHUB_API_URL") or ("https://api.github.com" if found and found[1] == "github.com" else "")
    if not token or not found or not api:
        return row
    os.environ["GITHUB_API_URL"] = api
    pulls, owner = f"/repos/{found[2]}/pulls", found[2].split("/")[0]
    listed = call("GET", f"{pulls}?state=open&head={owner}:{branch}", token=token)
    known = [one for one in listed if one["head"]["ref"] == branch]
    text = {"title": f"Template {release}", "body": body}
    if not known:
        answer = call("POST", pulls, {**text, "head": branch, "base": update.head(project)}, token)
    else:
        answer = call("PATCH", f"{pulls}/{known[0]['number']}", text, token) if body else known[0]
    return replace(row, pull_request=str(answer.get("html_url", "")))


def waves(projects: Sequence[Member], sizes: Sequence[int]) -> Iterator[list[Member]]:
    """The projects in waves: all pilots, then groups of these sizes; the last wave takes the rest."""
    pilots = [one for one in projects if one.pilot]
    others = [one for one in projects if not one.pilot]
    if pilots:
        yield pilots
    at = 0
    for size in sizes:
        if at < len(others):
            yield others[at : at + size]
        at += size
    if at < len(others):
        yield others[at:]


def bring_all(projects: Sequence[Member], options: argparse.Namespace) -> list[Row]:
    """Update a fleet wave by wave, until too many projects of a wave fail; a plan covers all projects."""
    rows: list[Row] = []
    held = [one for one in projects if one.held]
    free = [one for one in projects if not one.held]
    groups = [free] if options.plan else list(waves(free, [int(size) for size in options.waves.split()]))
    os.environ.setdefault("MYPY_CACHE_DIR", str(PLACE / "mypy"))  # types of the same packages are read once for all
    with ProcessPoolExecutor(WORKERS) as pool:
        for number, group in enumerate(groups, 1):
            told = list(pool.map(bring, group, [options] * len(group)))
            rows += told
            tried = [row for row in told if not row.blocked]
            failed = sum(not row.well for row in tried)
            left = [member for later in groups[number:] for member in later]
            if failed > MAX_FAILED_SHARE * len(tried) and left and not options.force:
                print(
                    f"wave {number}: {failed} of {len(tried)} projects failed; {len(left)} are left as they are. "
                    "FORCE=1 continues.",
                    file=sys.stderr,
                )
                empty = dict.fromkeys(told[0].cells, "")
                rows += [
                    Row(
                        {**empty, "project": one.name, "result": "not started"},
                        well=False,
                        reason=f"wave {number} failed",
                    )
                    for one in left
                ]
                break
    return rows + [bring(one, options) for one in held]


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


def take_token() -> str:
    """Return the token for GitHub's API. This process restarts without it: the checks can read its variables."""
    if TOKEN_FD in os.environ:
        with os.fdopen(int(os.environ.pop(TOKEN_FD)), encoding="utf-8") as pipe:
            return pipe.read()
    token = next((os.environ[name] for name in TOKENS if os.environ.get(name)), "")
    if token:
        reading, writing = os.pipe()
        os.write(writing, token.encode())
        os.close(writing)
        os.set_inheritable(reading, True)
        kept = {name: value for name, value in os.environ.items() if name not in TOKENS}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**kept, TOKEN_FD: str(reading)})
    return ""


def main() -> int:
    """Return 0 if no project needs action, else 1."""
    options = parse(sys.argv[1:])
    options.token = take_token()
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
        print(json.dumps([row.as_json() for row in rows], indent=2))
    else:
        print(table(rows))
        for row in rows:
            if not row.well and row.log:
                print(f"{row.cells['project']}: the whole reason is in {row.log}", file=sys.stderr)
    well = sum(row.well for row in rows)
    print(f"{well} of {len(rows)} are well", file=sys.stderr)
    return 0 if well == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
