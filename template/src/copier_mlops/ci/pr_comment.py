"""Write files as the one comment of a pull request, in place of what an earlier run wrote. Needs nothing but Python."""

import os
import sys
from pathlib import Path

from copier_mlops._errors import print_error
from copier_mlops._github import LONGEST, GitHubError, call

MARK = "<!-- the model of this pull request -->"
NEEDED = ("GITHUB_API_URL", "GITHUB_REPOSITORY", "GITHUB_TOKEN", "PULL_REQUEST")


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
        return print_error(
            f"a comment needs {lacks}; `make review` and `make check` write the files, a workflow sets the variables"
        )
    issues = f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues"
    comments = f"{issues}/{os.environ['PULL_REQUEST']}/comments"
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    body = {"body": f"{MARK}\n{text[:LONGEST]}"}
    try:
        there = ours(comments)
        where = ("POST", comments) if there is None else ("PATCH", f"{issues}/comments/{there}")
        answer = call(*where, body)
    except GitHubError as error:
        return print_error(error)
    print(answer.get("html_url", ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
