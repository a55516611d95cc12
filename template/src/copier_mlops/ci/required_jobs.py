"""The one job that a branch rule requires: did all the others pass? A job that was skipped or cancelled did not."""

import os
import sys

from copier_mlops._errors import print_error


def main() -> int:
    """0 if RESULTS names successes alone, and at least one."""
    results = os.environ.get("RESULTS", "").split()
    bad = [result for result in results if result != "success"]
    if bad or not results:
        return print_error(f"{len(bad)} of {len(results)} jobs did not pass: {' '.join(results) or 'none ran'}")
    print(f"all {len(results)} jobs passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
