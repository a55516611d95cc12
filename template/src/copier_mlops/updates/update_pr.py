"""Propose the newest release of the template as one pull request, in three steps that run in three jobs.

`merge` has tokens and runs only code of this project. `check` runs code of the release and has no token. `open` has
tokens again and takes only uv.lock and a verdict from `check`. In a single job, code of the release could read the
tokens of its parents. It accepts only a uv.lock whose packages come from where the lock of this project has them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tomllib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from copier_mlops._environment import git_settings
from copier_mlops._errors import print_error
from copier_mlops._github import LONGEST, GitHubError, call
from copier_mlops.updates import update
from copier_mlops.updates.upstream import MIRROR, Origin, OriginError, address, answers

BRANCH = "update/template"
MERGED = Path(".cache/proposal/merged")  # of `merge`: the commits and what the pull request says
CHECKED = Path(".cache/proposal/checked")  # of `check`
LOCK_BYTES = 20_000_000
NEEDED = ("GITHUB_API_URL", "GITHUB_REPOSITORY", "GITHUB_SERVER_URL")
HOW = (
    "Make a token that may write contents, pull requests and workflows of this repository, and keep it as the secret "
    "UPDATE_TOKEN of the environment `update`; or run `make update` yourself."
)


def say(text: str, warning: bool = True) -> None:
    """A line of the log, and of the page of the job."""
    print(f"::warning::{text}" if warning else text, flush=True)
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if page:
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def lend(token: str) -> None:
    """Let git use a token for GitHub's server; no other child process sees it."""
    header = f"AUTHORIZATION: basic {b64encode(f'x-access-token:{token}'.encode()).decode()}"
    git_settings[f"http.{os.environ['GITHUB_SERVER_URL']}/.extraheader"] = header
    os.environ["GIT_TERMINAL_PROMPT"] = "0"


def output(name: str, value: str) -> None:
    """Pass a value to the other jobs."""
    file = os.environ.get("GITHUB_OUTPUT")
    if file:
        with Path(file).open("a", encoding="utf-8") as opened:
            opened.write(f"{name}={value}\n")


def text(proposal: Mapping[str, Any], failed: str) -> str:
    """Return the text of the pull request."""
    kept = "".join(f"\n- {note}" for note in proposal["notes"])
    verdict = f"**Checks failed**\n\n```\n{failed[-5000:]}\n```" if failed else "`make check` and `make test` passed."
    changes = proposal["changelog"] or "The changelog names nothing that an owner must do."
    stat = proposal["stat"][-20_000:]
    return f"{changes}\n\n{verdict}\n{kept}\n\n```\n{stat}\n```\n\n`make update` does the same on a machine."[:LONGEST]


def open_or_renew(title: str, body: str) -> str:
    """Write the pull request; its address.

    Raises:
        GitHubError: If GitHub refuses.
    """
    pulls = f"/repos/{os.environ['GITHUB_REPOSITORY']}/pulls"
    owner = os.environ["GITHUB_REPOSITORY"].split("/")[0]
    known = call("GET", f"{pulls}?state=open&head={owner}:{BRANCH}")
    known = [one for one in known if one["head"]["ref"] == BRANCH]
    if known:
        answer = call("PATCH", f"{pulls}/{known[0]['number']}", {"title": title, "body": body})
    else:
        base = os.environ.get("BASE") or "main"
        answer = call("POST", pulls, {"title": title, "body": body, "head": BRANCH, "base": base})
    return str(answer.get("html_url", ""))


def merge(project: Path) -> int:
    """Merge the newest release in a clone, and keep its commits for the other steps.

    Returns:
        0 after a merge, if there is nothing to do, or if the workflow is not configured; 1 if a person has to resolve a
        conflict.

    Raises:
        OriginError: If the template or git fails.
    """
    source = os.environ.get("TEMPLATE") or str(answers(project)["_src_path"])
    try:
        origin = Origin(address(project, source), project / MIRROR)
    except OriginError as error:
        say(
            f"not configured, so nothing was updated: {error}. The variable TEMPLATE of the environment `update` names another address."
        )
        return 0
    chosen = update.choose(project, origin, "", {})
    if chosen is None:
        say(f"{answers(project)['_commit']} is the newest release; nothing to do", warning=False)
        return 0
    old, new = chosen
    with update.staged(project, BRANCH) as place:
        update.settle_source(place, source, origin.url)
        outcome = update.apply(place, origin, old, new, BRANCH, {}, trust=False)
        if outcome.conflicts:
            say(
                f"{new.ref} has conflicts; `make update` on a machine shows what to decide:\n{update.decisions(outcome.conflicts)}"
            )
            return 1
        workflows = update.git(place, "diff", "--name-only", outcome.start, "--", ".github/workflows").strip()
        if workflows and not os.environ.get("UPDATE_TOKEN"):
            say(f"not configured: {new.ref} changes workflows, which the token of a workflow may not. {HOW}")
            return 0
        shutil.rmtree(project / MERGED, ignore_errors=True)
        (project / MERGED).mkdir(parents=True)
        bundle = str((project / MERGED / "commits.bundle").resolve())
        update.git(place, "bundle", "create", "--quiet", bundle, f"{update.tip(project, 'HEAD')}..{BRANCH}")
        commit = update.tip(place, BRANCH)
    proposal = {"old": old.ref, "new": new.ref, "commit": commit, "changelog": outcome.changelog, "stat": outcome.stat}
    (project / MERGED / "proposal.json").write_text(
        json.dumps({**proposal, "notes": outcome.notes()}), encoding="utf-8"
    )
    output("commit", commit)
    say(f"{new.ref} merges", warning=False)
    return 0


@contextlib.contextmanager
def merged(project: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield a clone with the commits of `merge`, and the notes for the pull request.

    Raises:
        OriginError: If they are missing, or not the ones that MERGED_COMMIT names.
    """
    try:
        proposal = json.loads((project / MERGED / "proposal.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OriginError(f"{MERGED} has no proposal ({error}); `make propose-merge` writes it") from error
    expected = os.environ.get("MERGED_COMMIT") or proposal["commit"]
    with update.staged(project, BRANCH) as place:
        update.git(place, "fetch", "--quiet", "--no-tags", str((project / MERGED / "commits.bundle").resolve()), BRANCH)
        if update.tip(place, "FETCH_HEAD") != expected:
            raise OriginError(f"{MERGED} has other commits than the step before made ({expected})")
        update.git(place, "reset", "--quiet", "--hard", expected)
        yield place, proposal


def check(project: Path) -> int:
    """Lock, check and test the merged release without any token, and keep the lock and the verdict.

    Raises:
        OriginError: If git fails.
    """
    shutil.rmtree(project / CHECKED, ignore_errors=True)
    (project / CHECKED).mkdir(parents=True)
    with merged(project) as (place, proposal):
        failed = update.finish(project, place, proposal["new"], ["check", "test"])
        if update.git(place, "diff", "--name-only", proposal["commit"], "HEAD", "--", "uv.lock").strip():
            shutil.copyfile(place / "uv.lock", project / CHECKED / "uv.lock")
    (project / CHECKED / "failed.txt").write_text(failed, encoding="utf-8")
    print(failed or "make check and make test passed")
    return 0  # the last step opens the pull request in either case, and fails if these did


def locked(content: bytes) -> list[dict[str, Any]]:
    """Return the packages of a uv.lock.

    Raises:
        ValueError: If it is not a lock of uv, or has over 20 MB.
    """
    if len(content) > LOCK_BYTES:
        raise ValueError(f"it has {len(content)} bytes; the limit is {LOCK_BYTES}")
    packages = tomllib.loads(content.decode("utf-8")).get("package")
    if not isinstance(packages, list) or not all(isinstance(one, dict) and one.get("source") for one in packages):
        raise ValueError("a package has no source")
    return packages


def _source(package: Mapping[str, Any]) -> str:
    """Return where a package comes from; a commit of a git repository may be another one."""
    parts = {key: str(value).partition("#")[0] for key, value in package["source"].items()}
    named = "" if set(parts) == {"registry"} else f"{package['name']} "
    return named + json.dumps(parts, sort_keys=True)


def _files(package: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*([package["sdist"]] if "sdist" in package else []), *package.get("wheels", [])]


def _host(file: Mapping[str, Any]) -> str:
    address = urlsplit(str(file.get("url", "")))
    return f"{address.scheme}://{address.netloc}"


def _is_of(package: Mapping[str, Any], file: Mapping[str, Any]) -> bool:
    """Return whether the name of a file is that of the package and its version."""
    name = unquote(str(file.get("url") or file.get("path", ""))).rpartition("/")[2]
    try:
        found = parse_wheel_filename(name)[:2] if name.endswith(".whl") else parse_sdist_filename(name)
    except ValueError:
        return False
    return found == (canonicalize_name(package["name"]), Version(package["version"]))


def unexpected(before: bytes, now: bytes) -> list[str]:
    """Return what a lock takes from another place than the previous lock does, one sentence for each package.

    Raises:
        ValueError: If one of them is not a lock of uv.
    """
    known, packages = locked(before), locked(now)
    sources = {_source(one) for one in known}
    hosts = {_host(file) for one in known for file in _files(one)}
    found = []
    for package in packages:
        if _source(package) not in sources:
            found.append(f"{package['name']} comes from {_source(package)}")
        elif "registry" in package["source"]:
            files = _files(package)
            found += [f"{package['name']} has a file at {_host(file)}" for file in files if _host(file) not in hosts]
            found += [f"{package['name']} has a file of another package" for file in files if not _is_of(package, file)]
    return found


def publish(project: Path) -> int:
    """Push the branch, and open the pull request or rewrite the one of an earlier run.

    Returns:
        0 if the checks passed, 1 if they failed or did not end.

    Raises:
        OriginError: If git fails.
        GitHubError: If GitHub refuses.
    """
    verdict, lock = project / CHECKED / "failed.txt", project / CHECKED / "uv.lock"
    failed = verdict.read_text(encoding="utf-8", errors="replace") if verdict.is_file() else "The checks did not end."
    with merged(project) as (place, proposal):
        if lock.is_file() and not lock.is_symlink():
            content = lock.read_bytes()
            try:
                others = unexpected((place / "uv.lock").read_bytes(), content)
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise OriginError(f"the uv.lock of the checks is not valid: {error}") from error
            if others:
                raise OriginError(
                    "the uv.lock of the checks is refused, because packages come from places that this project's lock does not have:\n  "
                    + "\n  ".join(others[:10])
                    + "\nIf that is right, run `make update` on a machine, and review its uv.lock."
                )
            (place / "uv.lock").write_bytes(content)
            if update.git(place, "status", "--porcelain").strip():
                update.commit(place, proposal["new"], f"Known-good packages of {proposal['new']}")
        if not update.push(project, place, BRANCH):
            raise OriginError("this repository has no origin to push to")
    page = open_or_renew(f"Template {proposal['new']}", text(proposal, failed))
    say(f"{proposal['old']} -> {proposal['new']}: {page}", warning=False)
    if failed:
        say(failed)
    return 1 if failed else 0


STEPS = {"merge": merge, "check": check, "open": publish}


def propose(step: str) -> int:
    """Run a step: merge, check or open; return 0 if it was done, else 1."""
    try:
        if step == "check":
            return check(Path.cwd())
        missing = [name for name in NEEDED if not os.environ.get(name)]
        token = os.environ.get("UPDATE_TOKEN") or os.environ.get("GITHUB_TOKEN", "")
        if missing or not token:
            lacks = ", ".join([*missing, *([] if token else ["GITHUB_TOKEN"])])
            return print_error(f"a pull request needs {lacks}, which a workflow sets; on a machine run: make update")
        os.environ["GITHUB_TOKEN"] = token
        lend(token)
        return STEPS[step](Path.cwd())
    except (OriginError, GitHubError) as error:
        say(f"error: {error}")
        return 1
