"""A release: the known-good day moves on, all tests run, then a commit, a tag and its notes.

python ci/release.py refresh     move the day in pyproject.toml and in the template to today
python ci/release.py publish     commit that, tag VERSION, push both, publish the notes of CHANGELOG.md
"""

import datetime as dt
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = ("pyproject.toml", "template/pyproject.toml.jinja")
DAY = r'^exclude-newer = "[^"]+"'
VERSION = r"\d+\.\d+\.\d+"


class ReleaseError(Exception):
    """There can be no release; the text says what is missing."""


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


def notes(changelog: str, version: str) -> str:
    """The section of a version.

    Raises:
        ReleaseError: If there is none, or it is empty.
    """
    found = re.search(rf"^## v?{re.escape(version)}\b.*?\n(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    if not found or not found[1].strip():
        raise ReleaseError(f"CHANGELOG.md has no section {version}: say there what changes for a project")
    return found[1].strip()


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def publish(root: Path, version: str) -> str:
    """Commit, tag, push, publish; returns the tag.

    Raises:
        ReleaseError: If the version is none, is there already, or has no notes.
    """
    if not re.fullmatch(VERSION, version):
        raise ReleaseError(f"{version!r} is no version; it looks like 1.4.0")
    tag, text = f"v{version}", notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    if tag in git(root, "tag").splitlines():
        raise ReleaseError(f"{tag} is there already")
    if git(root, "status", "--porcelain", "--", *FILES):
        who = ("-c", "user.name=release", "-c", "user.email=release@localhost")
        git(root, *who, "commit", "--quiet", "--message", f"Known-good versions of {version}", "--", *FILES)
    git(root, "tag", tag)
    token = os.environ.get("GITHUB_TOKEN", "")
    server = os.environ.get("GITHUB_SERVER_URL", "")
    header = ("-c", f"http.{server}/.extraheader=Authorization: Bearer {token}") if token and server else ()
    git(root, *header, "push", "--quiet", "origin", "HEAD", tag)
    request = urllib.request.Request(
        f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}/releases",
        data=json.dumps({"tag_name": tag, "name": tag, "body": text}).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60):
        return tag


def main() -> int:
    """0 if it was done."""
    try:
        if sys.argv[1:] == ["refresh"]:
            refresh(ROOT, dt.datetime.now(dt.UTC).date())
        else:
            print(publish(ROOT, os.environ.get("VERSION", "")))
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
