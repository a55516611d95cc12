"""Requests to GitHub's API. Needs nothing but Python."""

import json
import os
import urllib.error
import urllib.request
from typing import Any

LONGEST = 60_000
"""Characters of a text; GitHub takes 65,536."""


class GitHubError(Exception):
    """GitHub refuses a request or does not answer; the text says what to do."""


def call(method: str, path: str, body: object = None, token: str = "") -> Any:
    """Send one request to GitHub's API, by default with the environment's token, and return the JSON of its response.

    Raises:
        GitHubError: If GitHub refuses, or does not answer.
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
        raise GitHubError(
            f"GitHub refuses {method} {path} ({error.code}). The job needs `permissions: pull-requests: write`, which a pull "
            "request from a fork never has; to open one, Settings, Actions, General has to allow it, too."
        ) from error
    except (OSError, ValueError) as error:
        raise GitHubError(f"GitHub at {os.environ['GITHUB_API_URL']} does not answer: {error}") from error
