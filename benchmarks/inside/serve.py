"""The online service as it is, or without what watches it: the prediction log and the counters of its metrics.

    python serve.py <package> watched|unwatched

A project has no such switch: its answers are logged, since labels come later. Here they are taken out to see what they cost.
"""

import importlib
import sys


def nothing(*arguments: object) -> None:
    """Take what would have been counted or written."""


online = importlib.import_module(f"{sys.argv[1]}.serving.online")
if sys.argv[2] == "unwatched":
    answers = importlib.import_module(f"{sys.argv[1]}.serving.predicting")
    metrics = importlib.import_module(f"{sys.argv[1]}.serving.metrics")
    answers.PredictionLog.add = nothing
    for name in ("answered", "batch", "refused"):
        setattr(metrics.Metrics, name, nothing)
sys.exit(online.main())
