"""Check that uv.lock matches pyproject.toml; offer a lock to a project that has none in git. Needs only Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from copier_mlops._errors import print_error

LOCK = Path("uv.lock")
OFFER = Path(".cache/offer")
OVERRIDES = ("UV_FROZEN", "UV_LOCKED")
"""Variables that change what `uv lock --check` does."""


def main() -> int:
    """Return 0 if the lock matches or was just made, 1 if it does not match pyproject.toml or uv is missing."""
    uv = sys.argv[1]
    if not shutil.which(uv):
        return print_error("the lock was not checked, because uv is not installed. Install it, or run `make setup`.")
    environment = {key: value for key, value in os.environ.items() if key not in OVERRIDES}
    tracked = subprocess.run(["git", "ls-files", "--error-unmatch", str(LOCK)], capture_output=True, check=False)
    if tracked.returncode != 0:
        subprocess.run([uv, "lock", "--quiet"], env=environment, check=True)
        OFFER.mkdir(parents=True, exist_ok=True)
        shutil.copy2(LOCK, OFFER / LOCK.name)
        said = "uv.lock is not committed; the known-good packages were resolved for this run. Commit it; CI offers it as the artifact uv.lock"
        print(f"::warning::{said}" if os.environ.get("GITHUB_ACTIONS") else f"note: {said}")
        return 0
    done = subprocess.run([uv, "lock", "--check"], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stderr.strip(), file=sys.stderr)
        return print_error("uv.lock does not match pyproject.toml; run `uv lock` and commit uv.lock")
    print("uv.lock matches pyproject.toml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
