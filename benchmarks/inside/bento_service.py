"""The same bundle behind BentoML, as its documentation shows it: a frame of the row for each request."""

import importlib
import os
from pathlib import Path
from typing import Any

import bentoml
import pandas as pd

TIMES = os.environ["TIMES"].split(",")


@bentoml.service(workers=1)
class Model:
    def __init__(self) -> None:
        self.bundle = importlib.import_module(f"{os.environ['PACKAGE']}.io.bundle").load(Path(os.environ["BUNDLE"]))

    @bentoml.api
    def predict(self, row: dict[str, Any]) -> float:
        rows = pd.DataFrame([row])
        for name in TIMES:
            rows[name] = pd.to_datetime(rows[name], utc=True)
        return float(self.bundle.score(rows)[0])
