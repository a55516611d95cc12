"""Compaction of the prediction log, for `make compact-log` and whoever runs it on a schedule."""

from __future__ import annotations

import sys

from .. import ProjectError
from ..io import prediction_log
from ..settings import Settings


def main() -> int:
    """Compact the log of PREDICTION_LOG, and keep LOG_KEEP_DAYS of it."""
    settings = Settings()
    try:
        done = prediction_log.compact(settings.prediction_log, settings.log_keep_days)
    except ProjectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    gone = f", {done.damaged:,} damaged ones passed over" if done.damaged else ""
    print(f"{done.entries:,} entries of {done.logs} files in {settings.prediction_log} are Parquet now{gone}")
    if done.removed:
        print(f"removed what is older than {settings.log_keep_days} days: {', '.join(done.removed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
