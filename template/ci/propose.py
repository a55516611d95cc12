"""A pull request with the newest release of the template: the one that an earlier run opened is written anew."""

from __future__ import annotations

import os
import sys
from base64 import b64encode
from pathlib import Path

from ci import update
from ci.comment import LONGEST, CommentError, call
from ci.origin import MIRROR, Origin, OriginError, address, answers

BRANCH = "update/template"
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
    """Let git, and the git that Copier starts, use a token for this server and for no other."""
    header = f"AUTHORIZATION: basic {b64encode(f'x-access-token:{token}'.encode()).decode()}"
    os.environ |= {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{os.environ['GITHUB_SERVER_URL']}/.extraheader",
        "GIT_CONFIG_VALUE_0": header,
    }


def text(outcome: update.Outcome, failed: str) -> str:
    """What the pull request says."""
    kept = "".join(
        f"\n- `{path}` is no longer in the template; it was changed here, so it stays" for path in outcome.kept
    )
    verdict = f"**Checks failed**\n\n```\n{failed[-5000:]}\n```" if failed else "`make check` and `make test` passed."
    told = outcome.changelog or "Nothing that an owner must know."
    return f"{told}\n\n{verdict}\n{kept}\n\n```\n{outcome.stat[-20_000:]}\n```\n\n`make update` does the same on a machine."[
        :LONGEST
    ]


def open_or_renew(title: str, body: str) -> str:
    """Write the pull request; its address.

    Raises:
        CommentError: If GitHub refuses.
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


def propose(project: Path) -> int:
    """0 if there is nothing to do, the pull request stands, or nobody allowed it; 1 if a person has to decide or mend.

    Raises:
        OriginError: If the template or git does not do its part.
        CommentError: If GitHub refuses.
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
                f"{new.ref} does not merge by itself; `make update` on a machine shows where to decide:\n{update.decisions(outcome)}"
            )
            return 1
        workflows = update.git(place, "diff", "--name-only", outcome.start, "--", ".github/workflows").strip()
        if workflows and not os.environ.get("UPDATE_TOKEN"):
            say(f"not configured: {new.ref} changes workflows, which the token of a workflow may not. {HOW}")
            return 0
        failed = update.finish(project, place, new.ref, ["check", "test"])
        if not update.push(project, place, BRANCH):
            raise OriginError("this repository has no origin to push to")
    page = open_or_renew(f"Template {new.ref}", text(outcome, failed))
    say(f"{old.ref} -> {new.ref}: {page}", warning=False)
    if failed:
        say(failed)
    return 1 if failed else 0


def main() -> int:
    """What `propose` says; 1 where it cannot."""
    missing = [name for name in NEEDED if not os.environ.get(name)]
    token = os.environ.get("UPDATE_TOKEN") or os.environ.get("GITHUB_TOKEN", "")
    if missing or not token:
        lacks = ", ".join([*missing, *([] if token else ["GITHUB_TOKEN"])])
        print(
            f"error: a pull request needs {lacks}, which a workflow gives; on a machine: make update", file=sys.stderr
        )
        return 1
    os.environ["GITHUB_TOKEN"] = token
    lend(token)
    try:
        return propose(Path.cwd())
    except (OriginError, CommentError) as error:
        say(f"error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
