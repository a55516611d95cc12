"""Compaction of the prediction log, for `make compact-log` and whoever runs it on a schedule."""

from __future__ import annotations

import sys

from .. import ProjectError
from ..io import deployed, prediction_log
from ..settings import Settings


def main() -> int:
    """Compact each log of this host, and keep LOG_KEEP_DAYS of it; 1 if one could not be."""
    settings, failed = Settings.of_command(), False
    for folder in deployed.logs(settings):
        try:
            done = prediction_log.compact(folder, settings.log_keep_days)
        except ProjectError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
            continue
        gone = f", {done.damaged:,} damaged ones passed over" if done.damaged else ""
        print(f"{done.entries:,} entries of {done.logs} files in {folder} are Parquet now{gone}")
        if done.removed:
            print(f"removed what is older than {settings.log_keep_days} days: {', '.join(done.removed)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
