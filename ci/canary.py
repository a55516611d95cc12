"""Does a project still work with the newest packages, rendered by the newest Copier? What fails first is told in an issue.

python ci/canary.py              render, take the known-good day and the constraints away, check, test, run
python ci/canary.py --issue      open an issue with the end of what was said, or add to the one that is open
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACE = ROOT / ".cache/canary"
LOG = ROOT / ".cache/canary.log"
TITLE = "The canary fell: a project does not work with the newest packages"
KNOWN_GOOD = r"^(exclude-newer|constraint-dependencies) = .*\n"
LAST = 6_000  # characters of the log in the issue

sys.path.insert(0, str(ROOT / "template/ci"))
from comment import CommentError, call  # noqa: E402 - the projects' own


def newest(project: Path) -> None:
    """Let a project resolve to whatever is newest."""
    file = project / "pyproject.toml"
    file.write_text(re.sub(KNOWN_GOOD, "", file.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")


def watch(words: tuple[str, ...]) -> int:
    """0 if all works, 1 if a step fails; what it said is in .cache/canary.log."""
    shutil.rmtree(PLACE, ignore_errors=True)
    LOG.parent.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)
    steps = [
        [*words, "copy", "--quiet", "--defaults", "--vcs-ref", "HEAD", str(ROOT), str(PLACE)],
        ["make", "-C", str(PLACE), "setup"],
        ["make", "-C", str(PLACE), "check"],
        ["make", "-C", str(PLACE), "test"],
        ["make", "-C", str(PLACE), "run"],
    ]
    for number, step in enumerate(steps):
        with LOG.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(step)}\n")
            log.flush()
            done = subprocess.run(step, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            print(LOG.read_text(encoding="utf-8")[-LAST:], file=sys.stderr)
            print(f"error: {' '.join(step)} failed with the newest packages", file=sys.stderr)
            return 1
        if number == 0:
            newest(PLACE)
    print("a project works with the newest packages")
    return 0


def tell() -> int:
    """0 if the issue stands."""
    said = LOG.read_text(encoding="utf-8")[-LAST:] if LOG.exists() else "nothing was said"
    body = f"{os.environ.get('RUN', '')}\n\n```\n{said}\n```\n"
    issues = f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues"
    try:
        known = [one for one in call("GET", f"{issues}?state=open&per_page=100") if one["title"] == TITLE]
        if known:
            answer = call("POST", f"{issues}/{known[0]['number']}/comments", {"body": body})
        else:
            answer = call("POST", issues, {"title": TITLE, "body": body})
    except CommentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(answer.get("html_url", ""))
    return 0


if __name__ == "__main__":
    sys.exit(tell() if "--issue" in sys.argv else watch(("uvx", "--refresh-package", "copier", "copier@latest")))
