"""Is uv.lock what pyproject.toml comes to? A project that was pushed before its lock was made gets one offered."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

LOCK = Path("uv.lock")
OFFER = Path(".cache/offer")


def main() -> int:
    """0 if the lock fits or was just made, 1 if it was edited or left behind by a change of pyproject.toml."""
    uv = sys.argv[1]
    tracked = subprocess.run(["git", "ls-files", "--error-unmatch", str(LOCK)], capture_output=True, check=False)
    if tracked.returncode != 0:
        subprocess.run([uv, "lock", "--quiet"], check=True)
        OFFER.mkdir(parents=True, exist_ok=True)
        shutil.copy2(LOCK, OFFER / LOCK.name)
        said = "uv.lock is not committed; the known-good packages were resolved for this run. Commit it; CI offers it as the artifact uv.lock"
        print(f"::warning::{said}" if os.environ.get("GITHUB_ACTIONS") else f"note: {said}")
        return 0
    done = subprocess.run([uv, "lock", "--check"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stderr.strip(), file=sys.stderr)
        print("error: uv.lock is not what pyproject.toml comes to; run `uv lock` and commit it", file=sys.stderr)
        return 1
    print("uv.lock is what pyproject.toml comes to")
    return 0


if __name__ == "__main__":
    sys.exit(main())
