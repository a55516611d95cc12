"""The same rows have the same answers, whichever way somebody asks, and they are those of the training's own code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sample_project.schema import CONTRACT

from copier_mlops.bundle import bundle
from copier_mlops.contract.contract import mask
from copier_mlops.contract.validation import check_rows
from copier_mlops.registry.mlflow_registry import Registry
from copier_mlops.serving import batch, precompute
from copier_mlops.serving.brokers import Taken
from copier_mlops.serving.bundle_loader import answering
from copier_mlops.serving.make_bundle import export
from copier_mlops.serving.predict_endpoint import Answers
from copier_mlops.serving.prediction_cache import Precomputed
from copier_mlops.serving.request_parser import Reader
from copier_mlops.serving.stream import Consumer
from copier_mlops.settings import Settings

from ..conftest import CLOSE

ROWS = 40


class Nothing:
    """In place of the prediction log."""

    def add(self, entries: Any) -> None:
        pass


def scores(answer: dict[str, Any]) -> list[float]:
    """The answers of a row, however they are written down."""
    if len(CONTRACT.classes) > 2:
        given = answer.get("scores") or {name: answer[f"score {name}"] for name in CONTRACT.classes}
        return [given[name] for name in CONTRACT.classes]
    return [answer["score"]]


def test_all_ways_answer_alike(registered: Path, rows: pd.DataFrame) -> None:
    settings = Settings()
    export(settings, None, settings.bundle_dir)
    loaded = answering(settings)
    questions = rows.drop(columns=CONTRACT.target).drop_duplicates(CONTRACT.id).tail(ROWS).reset_index(drop=True)
    text = questions.to_json(orient="records", date_format="iso", date_unit="us", double_precision=15)
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in json.loads(text)) + "\n")
    reader = Reader(loaded.contract, ROWS, settings.mask_key.get_secret_value())
    log: Any = Nothing()
    asked = reader.read(text.encode())

    online = [scores(answer) for answer in json.loads(Answers(loaded, reader, log)([asked])[0])]
    one_by_one = [
        scores(json.loads(Answers(loaded, reader, log)([reader.read(json.dumps(row).encode())])[0]))
        for row in json.loads(text)
    ]
    messages = [
        Taken(json.dumps(row).encode(), f"message {place}", place) for place, row in enumerate(json.loads(text))
    ]
    streamed = [
        scores(json.loads(message.body))
        for message in Consumer(loaded, reader, log, settings).work(messages, 1 << 24).messages
    ]
    batch.score(loaded, "rows.jsonl", "answers.parquet", settings, settings.bundle_dir)
    scored = [scores(answer) for answer in pd.read_parquet("answers.parquet").to_dict("records")]
    assert precompute.precompute(settings, "rows.jsonl") == (len(questions), 0)
    ahead = Precomputed(settings.precomputed, loaded.digest, 1).lookup(asked.rows)
    assert None not in ahead
    computed_ahead = [scores(answer) for answer in ahead if answer]

    assert online == scored == streamed == computed_ahead
    assert np.array(one_by_one) == pytest.approx(np.array(online), **CLOSE)  # alone, a row is added up in another order
    registry = Registry(settings)
    own = bundle.load(registry.bundle(registry.version(1)))
    masked = mask(questions, CONTRACT, settings.mask_key.get_secret_value())
    trained = own.score(check_rows(masked, CONTRACT, labelled=False).good).reshape(len(questions), -1)
    assert np.array(online) == pytest.approx(trained, **CLOSE)
