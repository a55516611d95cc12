"""Compaction of the prediction logs of this host, for `mlops compact-log` and the monitoring stack."""

from __future__ import annotations

from copier_mlops import ProjectError
from copier_mlops._errors import print_error
from copier_mlops.data import deployment_logs, log_compaction
from copier_mlops.settings import Settings


def compact(settings: Settings) -> bool:
    """Compact each log of this host, and remove entries older than LOG_KEEP_DAYS.

    Returns:
        Whether all of them were compacted; an error of one is printed, and the others are compacted.
    """
    failed = False
    for folder in deployment_logs.logs(settings):
        try:
            done = log_compaction.compact(folder, settings.log_keep_days)
        except ProjectError as error:
            print_error(error)
            failed = True
            continue
        gone = f", {done.damaged:,} damaged ones passed over" if done.damaged else ""
        print(f"{done.entries:,} entries of {done.logs} files in {folder} are Parquet now{gone}")
        if done.removed:
            print(f"removed what is older than {settings.log_keep_days} days: {', '.join(done.removed)}")
    return not failed
