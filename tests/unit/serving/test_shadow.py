"""Another model is asked beside the one that answers: its answers are in the log alone, and nothing of it holds up the service."""

import dataclasses
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sample_project.schema import CONTRACT

from copier_mlops.bundle import signing
from copier_mlops.bundle.bundle import Bundle
from copier_mlops.bundle.serving_bundle import load
from copier_mlops.data import log_reader
from copier_mlops.serving import online, shadow
from copier_mlops.serving.make_bundle import export
from copier_mlops.serving.request_batcher import SMALL
from copier_mlops.settings import Settings

from ..conftest import CLOSE, Enter
from .test_online import build, get, post
from .test_online import bundle as _bundle
from .test_online import folder as _folder
from .test_online import row as _row

folder, bundle, row = _folder, _bundle, _row

Serve = Callable[..., online.Service]


@pytest.fixture(scope="session")
def other(_registered: Path, _enter: Enter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the challenger."""
    with pytest.MonkeyPatch.context() as patch:
        project = _enter(_registered, tmp_path_factory.mktemp("shadow"), patch)
        export(Settings(), 2, project / "dist/shadow")
    return project / "dist/shadow"


@pytest.fixture
def serve(
    folder: Path, bundle: Bundle, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Serve]:
    """Start a service with a shadow, and wait until it takes part."""
    monkeypatch.setattr(shadow, "GATHER_SECONDS", 0.01)
    made: list[online.Service] = []

    def begin(up: bool = True, **settings: Any) -> online.Service:
        made.append(build(folder, bundle, tmp_path, monkeypatch, **{"shadow_dir": other, **settings}))
        until(lambda: made[-1].shadow.up if up else not made[-1].shadow._thread.is_alive())
        return made[-1]

    yield begin
    for service in made:
        service.close()


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def value(service: online.Service, name: str) -> float:
    lines = [line.rsplit(" ", 1) for line in get(service, "/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(lines[0][1])


def logged(tmp_path: Path, way: str) -> list[dict[str, Any]]:
    return [entry for entry in log_reader.entries(tmp_path / "log") if entry["way"] == way]


def test_the_shadow_answers_the_same_and_nobody_is_given_it(
    serve: Serve, row: dict[str, Any], other: Path, tmp_path: Path
) -> None:
    service = serve()
    answers = [post(service, row).json(), *post(service, [row] * (SMALL + 1)).json()]
    assert {answer["version"] for answer in answers} == {1}
    until(lambda: service.shadow.rows == SMALL + 2)
    assert [value(service, f"predict_shadow_{name}") for name in ("up", "rows_total", "failures_total")] == [
        1,
        SMALL + 2,
        0,
    ]
    service.close()
    answered, shadows = logged(tmp_path, "online"), logged(tmp_path, "shadow")
    assert [one["prediction"] for one in answered] == [one["prediction_id"] for one in answers]
    assert {one["prediction"]: one for one in answered}.keys() == {one["prediction"]: one for one in shadows}.keys()
    by = {one["prediction"]: one for one in shadows}
    truth = load(other).answer(pd.DataFrame([{**row, CONTRACT.id: answers[0]["id"]}])).iloc[0]
    for entry in answered:
        beside = by[entry["prediction"]]
        assert (beside["version"], beside["way"]) == (2, "shadow")
        assert {name: beside[name] for name in ("id", "at", "inputs")} == {
            name: entry[name] for name in ("id", "at", "inputs")
        }
        assert beside["answer"]["score"] == pytest.approx(truth["score"], **CLOSE)
        assert beside["answer"].keys() == entry["answer"].keys() or len(CONTRACT.classes) > 2


def test_without_one_there_is_nothing_of_it(
    folder: Path, bundle: Bundle, row: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = build(folder, bundle, tmp_path, monkeypatch)
    assert post(service, row).status_code == 200
    assert "shadow" not in get(service, "/metrics").text
    service.close()


@pytest.mark.parametrize("kind", ["missing", "damaged", "unsigned", "the same", "another contract"])
def test_one_that_cannot_be_used_is_said_and_stops_nothing(
    kind: str,
    serve: Serve,
    row: dict[str, Any],
    folder: Path,
    other: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = Path(shutil.copytree(other, tmp_path / "place"))
    says = {"missing": "is no bundle", "damaged": "expected.json was changed", "unsigned": "is not signed",
            "the same": "version 1 is the one that answers", "another contract": "its contract is another"}[kind]  # fmt: skip
    settings: dict[str, Any] = {"shadow_dir": folder if kind == "the same" else place}
    if kind == "missing":
        shutil.rmtree(place)
    if kind == "damaged":
        (place / "expected.json").write_text("{}")
    if kind == "unsigned":
        settings["verify_key"] = signing.new_pair()[1]
    if kind == "another contract":
        fewer = dataclasses.replace(load(other).contract, columns=CONTRACT.columns[::-1])
        monkeypatch.setattr(shadow, "answering", lambda *given: dataclasses.replace(load(other), contract=fewer))
    with caplog.at_level(logging.ERROR):
        service = serve(up=False, **settings)
    assert says in caplog.text and "nothing is answered in the shadow" in caplog.text
    assert post(service, row).status_code == 200
    assert value(service, "predict_shadow_up") == 0
    assert value(service, "predict_shadow_dropped_total") == 1
    service.close()
    assert len(logged(tmp_path, "online")) == 1 and not logged(tmp_path, "shadow")


def slow(seconds: float, folder: Path) -> Callable[..., Bundle]:
    """Load a bundle that takes its time to answer."""
    loaded = load(folder)

    def build_features(rows: pd.DataFrame) -> pd.DataFrame:
        time.sleep(seconds)
        return loaded.build_features(rows)

    return lambda *given: dataclasses.replace(loaded, build_features=build_features)


def test_answers_do_not_wait_for_it(
    serve: Serve, row: dict[str, Any], other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidate blocks until the test ends, so anything that waits for it would block, too."""
    loaded, ended, waited = load(other), threading.Event(), threading.Event()

    def build_features(rows: pd.DataFrame) -> pd.DataFrame:
        ended.wait(60)
        waited.set()
        return loaded.build_features(rows)

    monkeypatch.setattr(shadow, "answering", lambda *given: dataclasses.replace(loaded, build_features=build_features))
    monkeypatch.setattr(shadow, "LEAVING_SECONDS", 0.1)
    service = serve()
    for _ in range(11):
        assert post(service, row).status_code == 200
    service.close()  # it does not wait either
    assert not waited.is_set()
    ended.set()
    assert service.shadow.rows + service.shadow.dropped <= 11


def test_nor_does_the_start(serve: Serve, row: dict[str, Any], other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is answered until it is there waits for it, as far as there is room."""
    loaded, ended, waited = load(other), threading.Event(), threading.Event()

    def answering(*given: Any) -> Bundle:
        ended.wait(60)
        waited.set()
        return loaded

    monkeypatch.setattr(shadow, "answering", answering)
    monkeypatch.setattr(online, "_ahead", lambda *given: None)
    made = shadow.Shadow(Settings(shadow_dir=other), loaded, None)  # type: ignore[arg-type]
    assert not waited.is_set()
    ended.set()
    made.close()


def test_what_does_not_fit_is_dropped_and_counted(
    serve: Serve, row: dict[str, Any], other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "answering", slow(0.5, other))
    service = serve(max_waiting_rows=5)
    for _ in range(20):
        assert post(service, row).status_code == 200
    assert value(service, "predict_shadow_dropped_total") >= 5
    service.close()
    assert len(logged(tmp_path, "online")) == 20
    assert len(logged(tmp_path, "shadow")) == service.shadow.rows
    assert service.shadow.rows + service.shadow.dropped <= 20


def test_a_row_that_it_cannot_answer_takes_no_other_along(
    serve: Serve, row: dict[str, Any], other: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load(other)

    def build_features(rows: pd.DataFrame) -> pd.DataFrame:
        if len(rows) > 2:
            raise ValueError("a value of somebody")
        return loaded.build_features(rows)

    broken = dataclasses.replace(loaded, build_features=build_features)
    monkeypatch.setattr(shadow, "answering", lambda *given: broken)
    monkeypatch.setattr(shadow, "GATHER_SECONDS", 0.2)
    service = serve()
    assert post(service, [row] * 3).status_code == post(service, [row] * 2).status_code == 200
    post(service, [row] * 3)
    until(lambda: service.shadow.failures == 6)
    assert value(service, "predict_shadow_failures_total") == 6 and value(service, "predict_shadow_rows_total") == 2
    told = [record for record in caplog.records if "in the shadow" in record.getMessage() and record.exc_info]
    assert len(told) == 1  # the next thousand would say the same
    assert "of somebody" not in json.loads(online.JsonLines().format(told[0])).values()
