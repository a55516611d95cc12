"""Where the stages leave things, as dvc.yaml names them; all relative to the project's folder."""

from pathlib import Path

RAW = Path("data/raw")
VALIDATED = Path("data/validated")
SET_ASIDE = Path("data/set_aside")
FEATURES = Path("data/features")
SCORED = Path("data/scored/test.parquet")
BUNDLE = Path("models/bundle")
REPORTS = Path("reports")
VALIDATION = REPORTS / "validation.json"
TRIALS = REPORTS / "trials.json"
METRICS = REPORTS / "metrics.json"
FACTS = REPORTS / "facts.json"
PLOTS = REPORTS / "plots"
PAGE = REPORTS / "report.html"
CARD = REPORTS / "model_card.md"
STUDIES = Path(".cache/search.db")
DONE = Path(".cache/done.json")
LOCK = Path("dvc.lock")
ENVIRONMENT = Path("uv.lock")
POINTER = Path("champion.json")
