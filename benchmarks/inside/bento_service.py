"""The same bundle behind BentoML, as its documentation shows it: a frame of the row for each request, its columns as the model
knows them (a number that is missing comes as null, and would make the column one of objects)."""

import importlib
import os
from pathlib import Path
from typing import Any

import bentoml
import pandas as pd


@bentoml.service(workers=1)
class Model:
    def __init__(self) -> None:
        self.bundle = importlib.import_module(f"{os.environ['PACKAGE']}.io.bundle").load(Path(os.environ["BUNDLE"]))
        columns = self.bundle.contract.without_target()
        self.times = [column.name for column in columns if column.kind == "timestamp"]
        self.numbers = {column.name: "float64" for column in columns if column.kind in ("number", "integer", "boolean")}

    @bentoml.api
    def predict(self, row: dict[str, Any]) -> float:
        rows = pd.DataFrame([row]).astype(self.numbers)
        for name in self.times:
            rows[name] = pd.to_datetime(rows[name], utc=True)
        return float(self.bundle.score(rows)[0])
