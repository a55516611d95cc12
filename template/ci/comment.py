"""Write files as the one comment of a pull request, in place of what an earlier run wrote. Needs nothing but Python."""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MARK = "<!-- the model of this pull request -->"
LONGEST = 60_000  # GitHub takes 65,536 characters
NEEDED = ("GITHUB_API_URL", "GITHUB_REPOSITORY", "GITHUB_TOKEN", "PULL_REQUEST")


class CommentError(Exception):
    """The comment cannot be written; the text says what to do."""


def call(method: str, path: str, body: object = None, token: str = "") -> Any:
    """Send one request to GitHub's API, by default with the environment's token, and return the JSON of its response.

    Raises:
        CommentError: If GitHub refuses, or does not answer.
    """
    request = urllib.request.Request(
        os.environ["GITHUB_API_URL"] + path,
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token or os.environ['GITHUB_TOKEN']}",
            "Content-Type": "application/json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise CommentError(
            f"GitHub refuses {method} {path} ({error.code}). The job needs `permissions: pull-requests: write`, which a pull "
            "request from a fork never has; to open one, Settings, Actions, General has to allow it, too."
        ) from error
    except (OSError, ValueError) as error:
        raise CommentError(f"GitHub at {os.environ['GITHUB_API_URL']} does not answer: {error}") from error


def ours(comments: str) -> int | None:
    """The number of the comment that an earlier run wrote."""
    page = 1
    while found := call("GET", f"{comments}?per_page=100&page={page}"):
        for one in found:
            if str(one.get("body", "")).startswith(MARK):
                return int(one["id"])
        page += 1
    return None


def main() -> int:
    """Return 0 if the comment is written; arguments name the files that it consists of, as far as they are there."""
    missing = [name for name in NEEDED if not os.environ.get(name)]
    files = [Path(name) for name in sys.argv[1:] if Path(name).exists()]
    if missing or not files:
        lacks = ", ".join([*missing, *([] if files else [" or ".join(sys.argv[1:])])])
        print(
            f"error: a comment needs {lacks}; `make review` and `make check` write the files, a workflow sets the variables",
            file=sys.stderr,
        )
        return 1
    issues = f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues"
    comments = f"{issues}/{os.environ['PULL_REQUEST']}/comments"
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    body = {"body": f"{MARK}\n{text[:LONGEST]}"}
    try:
        there = ours(comments)
        where = ("POST", comments) if there is None else ("PATCH", f"{issues}/comments/{there}")
        answer = call(*where, body)
    except CommentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(answer.get("html_url", ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
