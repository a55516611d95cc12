"""The online service: what it answers, what it refuses and how it says so, and how it starts and leaves."""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from sample_project.schema import CONTRACT

from copier_mlops import Contract, ProjectError
from copier_mlops.bundle.bundle import Bundle
from copier_mlops.bundle.serving_bundle import load
from copier_mlops.data import log_reader, prediction_log
from copier_mlops.serving import online, predict_endpoint
from copier_mlops.serving.make_bundle import export
from copier_mlops.serving.openapi import example_row
from copier_mlops.serving.request_batcher import SMALL
from copier_mlops.serving.request_parser import Reader
from copier_mlops.settings import Settings

from ..conftest import CLOSE, Enter, mlops
from ..fixture_project import ROOT

Asks = Callable[[httpx.AsyncClient], Awaitable[Any]]


@pytest.fixture(scope="session")
def folder(_registered: Path, _enter: Enter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a tiny project's champion, for services."""
    with pytest.MonkeyPatch.context() as patch:
        project = _enter(_registered, tmp_path_factory.mktemp("exported"), patch)
        export(Settings(), None, project / "dist/bundle")
    return project / "dist/bundle"


@pytest.fixture(scope="session")
def bundle(folder: Path) -> Bundle:
    return load(folder)


@pytest.fixture
def row(bundle: Bundle) -> dict[str, Any]:
    """One that the service answers; it has no id, since ids may have rules."""
    found = example_row(bundle)
    found.pop(CONTRACT.id, None)
    return found


@pytest.fixture
def service(folder: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[online.Service]:
    made = build(folder, bundle, tmp_path, monkeypatch)
    yield made
    made.close()


def build(
    folder: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> online.Service:
    """A service of that bundle; loading it once is enough."""
    monkeypatch.setattr(online, "answering", lambda settings: bundle)
    ours = {"bundle_dir": folder, "prediction_log": tmp_path / "log", "log_flush_seconds": 0.05, "answer_seconds": 30}
    return online.Service(Settings(**{**ours, **settings}))


def ask(service: online.Service, asks: Asks) -> Any:
    """Whatever some code asks of a service in this process."""

    async def run() -> Any:
        transport = httpx.ASGITransport(online.application(service, "Sample project"), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await asks(client)

    return asyncio.run(run())


def post(service: online.Service, given: Any, path: str = "/predict", **how: Any) -> httpx.Response:
    content = given if isinstance(given, bytes) else json.dumps(given).encode()
    return ask(service, lambda client: client.post(path, content=content, **how))


def get(service: online.Service, path: str) -> httpx.Response:
    return ask(service, lambda client: client.get(path))


# -------------------------------------------------------------------------------------------------------- Answers


def test_a_row_is_answered_as_the_bundle_answers_it_and_noted_in_the_log(
    service: online.Service, bundle: Bundle, row: dict[str, Any], tmp_path: Path
) -> None:
    answer = post(service, row).json()
    truth = bundle.answer(pd.DataFrame([{**row, CONTRACT.id: answer["id"]}])).iloc[0]
    assert answer["score"] == pytest.approx(truth["score"], **CLOSE)
    assert answer["version"] == 1
    assert answer.get("prediction") == truth.get("prediction")
    assert list(answer.get("scores", {})) == (list(CONTRACT.classes) if len(CONTRACT.classes) > 2 else [])
    service.close()
    [entry] = log_reader.entries(tmp_path / "log")
    assert (entry["prediction"], entry["version"], entry["way"]) == (answer["prediction_id"], 1, "online")
    assert entry["answer"]["score"] == answer["score"]
    assert list(entry["inputs"]) == [column.name for column in CONTRACT.without_target()]
    assert pd.Timestamp(entry["at"]).tz is not None


def test_a_value_that_the_training_had_not_is_answered_and_named(
    folder: Path, bundle: Bundle, row: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = CONTRACT.features()[0]
    pooled = [
        dataclasses.replace(one, nullable=False, unseen="pool") if one.name == name else one for one in CONTRACT.columns
    ]
    changed = dataclasses.replace(bundle, contract=Contract(tuple(pooled)))
    service = build(folder, changed, tmp_path, monkeypatch)
    try:
        answers = post(service, [{**row, name: None}, row]).json()
        assert [answer.get("unseen") for answer in answers] == [[name], None]
        assert all(answer["score"] is not None for answer in answers)
        assert post(service, {key: value for key, value in row.items() if key != name}).status_code == 422
        said = get(service, "/metrics").text
        assert re.search(rf'^predict_unseen_values_total.field="{re.escape(name)}". 1', said, re.M)
        page = get(service, "/openapi.json").json()["components"]["schemas"]
        assert "unseen" in json.dumps(page)
    finally:
        service.close()
    entries = list(log_reader.entries(tmp_path / "log"))
    assert [entry["answer"].get("unseen") for entry in entries] == [[name], None]


def test_a_smoke_test_is_noted_as_one_and_hides_no_other_rows(
    folder: Path, bundle: Bundle, row: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment sends example rows, which are not production traffic. All other rows are, whatever their headers."""
    rows = [one for one in bundle.expected["rows"] if one != bundle.expected["rows"][0]]
    fewer = dataclasses.replace(bundle, expected={**bundle.expected, "rows": rows})
    other, row = row, example_row(fewer)  # the first one is not an example any more
    row.pop(CONTRACT.id, None)
    service = build(folder, fewer, tmp_path, monkeypatch)
    for given, value in ((row, "true"), (row, "no"), (other, "true"), ([row, row], "true"), ([row, other], "true")):
        assert post(service, given, headers={"X-Smoke-Test": value}).status_code == 200
    service.close()
    ways = [entry["way"] for entry in log_reader.entries(tmp_path / "log")]
    assert ways == ["smoke", "online", "online", "smoke", "smoke", "online", "online"]


def test_a_replay_says_when_it_asks_and_nobody_else_may(
    folder: Path, bundle: Bundle, row: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = build(folder, bundle, tmp_path, monkeypatch, accept_asked_at=True)
    then, header = "2013-07-01T10:00:00+02:00", "X-Asked-At"
    assert post(service, row, headers={header: then}).status_code == 200
    assert post(service, [row], headers={}).status_code == 200
    for wrong in ("yesterday", "2013-07-01T10:00:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"):
        refused = post(service, row, headers={header: wrong})
        assert refused.status_code == 400 and "2024-01-31T09:30:00+00:00" in refused.json()["detail"]
    service.close()
    first, second = log_reader.entries(tmp_path / "log")
    assert first["at"] == "2013-07-01T08:00:00+00:00"
    assert pd.Timestamp.now("UTC") - pd.Timestamp(second["at"]) < pd.Timedelta(minutes=5)

    careful = build(folder, bundle, tmp_path / "careful", monkeypatch)
    assert post(careful, row, headers={header: then}).status_code == 200
    careful.close()
    [entry] = log_reader.entries(tmp_path / "careful/log")
    assert not entry["at"].startswith("2013")
    with pytest.raises(ProjectError, match="ACCEPT_ASKED_AT lets callers say when they asked"):
        build(folder, bundle, tmp_path, monkeypatch, accept_asked_at=True, service_environment="prod", verify_key="x")


def test_many_rows_are_answered_in_their_order(service: online.Service, row: dict[str, Any]) -> None:
    answers = post(service, [row] * (SMALL + 1)).json()
    assert len({answer["prediction_id"] for answer in answers}) == SMALL + 1
    assert [answer["score"] for answer in answers] == pytest.approx([answers[0]["score"]] * (SMALL + 1), **CLOSE)
    assert post(service, []).json() == []
    assert len(post(service, [row]).json()) == 1


def test_the_same_question_together_with_others_has_the_same_answer(
    service: online.Service, row: dict[str, Any]
) -> None:
    async def together(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/predict", json=row) for _ in range(20)))

    scores = [response.json()["score"] for response in ask(service, together)]
    assert scores == pytest.approx([post(service, row).json()["score"]] * 20, **CLOSE)
    said = get(service, "/metrics").text
    assert re.search(r'^predict_batch_rows_bucket\{le="16.0"\} 1\.0$', said, re.M), "the twenty came one by one"


def test_a_value_that_breaks_the_contract_is_named_with_what_is_allowed(
    service: online.Service, row: dict[str, Any]
) -> None:
    columns = [column for column in CONTRACT.columns if column.name in row]
    column = min(columns, key=lambda one: one.kind == "string")
    response = post(service, [row, {**row, column.name: ["wrong"], "unheard of": 1}])
    assert response.status_code == 422
    said = response.json()
    assert said["count"] == 2
    faults = {fault["field"]: fault for fault in said["faults"]}
    assert set(faults) == {column.name, "unheard of"}
    assert faults[column.name]["row"] == 1
    assert faults[column.name]["value"] == '["wrong"]'
    assert faults[column.name]["allowed"]
    text = get(service, "/metrics").text
    assert re.search(rf'^predict_refused_values_total.field="{re.escape(column.name)}". 1', text, re.M)
    assert 'predict_refused_values_total{field="other"} 1.0' in text
    assert 'http_requests_total{path="/predict",status="422"} 1.0' in text


def test_numbers_that_are_written_as_text_are_taken(service: online.Service, row: dict[str, Any]) -> None:
    numbers = [name for name in CONTRACT.features("number", "integer") if row.get(name) is not None]
    written = {**row, **{name: str(row[name]) for name in numbers}}
    assert post(service, written).json()["score"] == post(service, row).json()["score"]


@pytest.mark.parametrize(
    ("given", "status", "says"),
    [
        (b'{"a": ', 400, "not JSON"),
        (b"", 400, "not JSON"),
        (b'{"a": NaN}', 400, "NaN and Infinity are no JSON"),
        (b"[" * 5000, 400, "nested too deeply"),
        (b'{"a": "\xff"}', 400, "not"),
        (b"3", 422, "an object with a field for each column"),
        (b"[[]]", 422, "an object with a field for each column"),
    ],
)
def test_a_body_that_is_no_row_has_a_clear_answer(
    service: online.Service, given: bytes, status: int, says: str
) -> None:
    response = post(service, given)
    assert response.status_code == status
    assert says in response.json()["detail"]


def test_what_is_too_large_is_refused(
    folder: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any]
) -> None:
    service = build(folder, bundle, tmp_path, monkeypatch, max_rows=2, max_body_bytes=5000)
    said = post(service, [row] * 3)
    assert (said.status_code, said.json()["detail"]) == (413, "3 rows at once are too many; send 2 at most")
    for path in ("/predict", "/explain"):
        said = post(service, b" " * 5001, path)
        assert said.status_code == 413
        assert "more than 5000 bytes" in said.json()["detail"]
    assert post(service, row, headers={"content-encoding": "gzip"}).status_code == 415
    assert post(service, row, headers={"content-type": "text/plain"}).status_code == 200  # JSON is JSON
    assert get(service, "/predict").status_code == 405
    service.close()


def slowly(bundle: Bundle, seconds: float) -> Bundle:
    def build_features(rows: pd.DataFrame) -> pd.DataFrame:
        time.sleep(seconds)
        return bundle.build_features(rows)

    return dataclasses.replace(bundle, build_features=build_features)


def test_a_full_queue_is_said_at_once_and_health_answers_meanwhile(
    folder: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any]
) -> None:
    answered = threading.Event()

    def build_features(rows: pd.DataFrame) -> pd.DataFrame:
        answered.wait(60)
        return bundle.build_features(rows)

    held = dataclasses.replace(bundle, build_features=build_features)
    service = build(folder, held, tmp_path, monkeypatch, max_waiting_rows=2 * SMALL)

    async def together(client: httpx.AsyncClient) -> tuple[list[int], bool, httpx.Response]:
        many = [client.post("/predict", json=[row] * (SMALL + 1)) for _ in range(4)]
        waiting = asyncio.gather(*many)
        await asyncio.sleep(0.1)
        assert (await client.get("/health/live")).status_code == 200
        meanwhile = not waiting.done()
        answered.set()
        answers = await waiting
        busy = next(answer for answer in answers if answer.status_code == 429)
        return sorted(answer.status_code for answer in answers), meanwhile, busy

    codes, meanwhile, busy = ask(service, together)
    assert codes == [200, 429, 429, 429]
    assert meanwhile
    assert busy.headers["retry-after"] == "1"
    service.close()


def test_an_answer_that_takes_too_long_is_given_up(
    folder: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any]
) -> None:
    service = build(folder, slowly(bundle, 0.5), tmp_path, monkeypatch, answer_seconds=0.2)
    response = post(service, [row] * (SMALL + 1))
    assert response.status_code == 504
    assert "no response within 0.2 seconds" in response.json()["detail"]
    service.close()


def called(service: online.Service, receive: Callable[[], Awaitable[Any]], **scope: Any) -> tuple[int, bytes]:
    """Call /predict as a server does, with a body that the test delivers."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "POST", "path": "/predict", "headers": [], **scope}
    asyncio.run(online.application(service, "Sample project")(whole, receive, send))
    return sent[0]["status"], sent[1]["body"]


def test_a_full_queue_rejects_a_request_before_its_body_is_received_and_before_it_is_decoded(
    folder: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any]
) -> None:
    service = build(folder, bundle, tmp_path, monkeypatch, max_waiting_rows=100)
    many = json.dumps([row] * 10).encode()

    async def never() -> Any:
        raise AssertionError("the body was received")

    async def body() -> Any:
        service.batcher.rows = 95  # others came meanwhile
        return {"type": "http.request", "body": many}

    assert post(service, [row] * 10).status_code == 200  # so the service knows how large rows are
    service.batcher.rows = 100
    assert called(service, never)[0] == 429
    monkeypatch.setattr(Reader, "quick", lambda reader, body: pytest.fail("the body was decoded"))
    service.batcher.rows = 0
    assert called(service, body)[0] == 429
    service.batcher.rows = 0
    service.close()


def test_a_body_that_is_checked_holds_its_place_until_that_ends(
    folder: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any]
) -> None:
    monkeypatch.setattr(predict_endpoint, "CHECKING", 1)
    service, checked = build(folder, bundle, tmp_path, monkeypatch, answer_seconds=0.2), threading.Event()
    careful = Reader.careful
    monkeypatch.setattr(Reader, "careful", lambda *given: checked.wait(60) and careful(*given))
    wrong = {**row, "unknown": 1}
    assert post(service, wrong).status_code == 504
    assert post(service, wrong).status_code == 429  # the first request has timed out, but its thread still runs
    checked.set()
    deadline = time.monotonic() + 30
    while post(service, wrong).status_code != 422 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert post(service, wrong).status_code == 422
    service.close()


def test_the_time_for_a_request_counts_from_its_arrival(service: online.Service, row: dict[str, Any]) -> None:
    async def body() -> Any:
        return {"type": "http.request", "body": json.dumps(row).encode()}

    late = {"arrived": time.perf_counter() - 31}  # in a loop that was busy
    assert called(service, body, state=late)[0] == 504
    assert called(service, body, state={"arrived": time.perf_counter()})[0] == 200
    for seconds, status in ((29, 200), (31, 429)):  # the limit is 30 s
        assert called(service, body, state={"arrived": time.perf_counter(), "pipelined": seconds})[0] == status


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_the_duration_of_a_request_counts_from_its_complete_body(
    folder: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], path: str
) -> None:
    """Slow clients would stop every deployment and every rollback: both are judged by this metric."""
    service = build(folder, bundle, tmp_path, monkeypatch, answer_seconds=1000)
    clock = [time.perf_counter()]
    monkeypatch.setattr(predict_endpoint.time, "perf_counter", lambda: clock[0])
    parts = [b"", json.dumps(row).encode()]

    async def slowly() -> Any:
        clock[0] += 100
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    assert called(service, slowly, path=path, query_string=b"", http_version="1.1")[0] == 200
    said = get(service, "/metrics").text
    assert f'http_request_duration_seconds_count{{path="{path}"}} 1.0' in said
    assert f'http_request_duration_seconds_sum{{path="{path}"}} 0.0' in said
    service.close()


def test_a_model_that_fails_says_so_without_the_values_of_the_row(
    folder: Path,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    row: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def build_features(rows: pd.DataFrame) -> pd.DataFrame:
        raise ValueError("could not use: a value of somebody")

    service = build(folder, dataclasses.replace(bundle, build_features=build_features), tmp_path, monkeypatch)
    response = post(service, row)
    assert response.status_code == 500
    assert "ValueError" in response.json()["detail"]
    line = online.JsonLines().format(caplog.records[-1])
    assert "of somebody" not in line + response.text
    assert any("build_features" in place for place in json.loads(line)["at_lines"])
    service.close()


# --------------------------------------------------------------------------------------------- What else it says


def test_the_page_describes_rows_and_its_example_is_answered(service: online.Service) -> None:
    page = get(service, "/openapi.json").json()
    body = page["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    for given in body["examples"].values():
        assert post(service, given["value"]).status_code == 200
    described = page["components"]["schemas"]["Row"]
    assert list(described["properties"]) == [column.name for column in CONTRACT.without_target()]
    assert not any("security" in way for ways in page["paths"].values() for way in ways.values())
    shown = get(service, "/docs").text
    parts = re.findall(r'(?:src|href)="([^"]+)"', shown)
    assert len(parts) >= 2
    for part in parts:  # all of it is served from here
        assert get(service, part).status_code == 200


def test_the_model_says_where_it_comes_from(service: online.Service, bundle: Bundle) -> None:
    said = get(service, "/model").json()
    assert (said["version"], said["digest"]) == (1, bundle.digest)
    assert said["lineage"]["run"]
    assert said["metrics"]
    assert said["card"].startswith("#")
    assert re.search(f'^model_info.digest="{bundle.digest}",version="1". 1', get(service, "/metrics").text, re.M)


def test_health_says_when_it_leaves(service: online.Service) -> None:
    assert get(service, "/health/live").json() == {"status": "live"}
    assert get(service, "/health/ready").status_code == 200
    service.leaving = True
    assert get(service, "/health/ready").status_code == 503
    assert get(service, "/health/live").status_code == 200


def test_head_is_answered_as_get_without_a_body(service: online.Service) -> None:
    for path in ("/health/live", "/health/ready", "/metrics", "/model", "/openapi.json"):
        said = ask(service, lambda client, path=path: client.head(path))
        assert said.status_code == 200 and int(said.headers["content-length"]) > 0
    service.leaving = True
    assert ask(service, lambda client: client.head("/health/ready")).status_code == 503
    assert ask(service, lambda client: client.head("/predict")).status_code == 405


def test_a_log_that_cannot_be_read_is_reported_without_its_folder(
    service: online.Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(folder: Path, prediction: str) -> None:
        raise prediction_log.LogError(f"the log in {folder} cannot be read")

    monkeypatch.setattr(log_reader, "find", broken)
    said = post(service, {"prediction_id": "0" * 32}, "/explain")
    assert said.status_code == 503 and "cannot be read" in said.json()["detail"]
    assert str(tmp_path) not in said.text and str(tmp_path) in caplog.text


def test_connections_are_closed_once_a_second(service: online.Service, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Any] = []
    monkeypatch.setattr(online, "close_idle", lambda *given: closed.append(given))
    server = online.Server(online.uvicorn.Config(online.application(service, "Sample project")), service)
    for counter in range(1, 21):
        assert asyncio.run(server.on_tick(counter)) is False
    assert closed == [(server.server_state.connections, 10.0)] * 2


def test_health_and_metrics_need_no_key_and_everything_else_does(
    folder: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any]
) -> None:
    key = secrets.token_hex(16)
    service = build(folder, bundle, tmp_path, monkeypatch, api_keys=key)
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert get(service, path).status_code == 200
    assert get(service, "/model").status_code == 401
    paths = get(service, "/openapi.json").json()["paths"]
    closed = {path for path, ways in paths.items() for way in ways.values() if "security" in way}
    assert closed == {"/predict", "/explain", "/model"}
    for path in ("/predict", "/explain"):
        refused = post(service, row, path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert post(service, row, path, headers={"x-api-key": key}).status_code == 200
    service.close()


def test_an_answer_is_explained_from_the_row_or_from_the_log(
    service: online.Service,
    row: dict[str, Any],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = post(service, row).json()
    found = post(service, {**row}, "/explain").json()
    assert found["score"] == pytest.approx(answer["score"], **CLOSE)
    parts = sum(one["contribution"] for one in found["contributions"])
    assert found["baseline"] + parts == pytest.approx(found["score"])
    time.sleep(0.3)
    logged = post(service, {"prediction_id": answer["prediction_id"]}, "/explain").json()
    assert logged["contributions"] == found["contributions"]
    assert (logged["id"], logged["answered_by"]) == (answer["id"], 1)
    missing = post(service, {"prediction_id": "nobody knows"}, "/explain")
    assert missing.status_code == 404
    assert "has no prediction nobody knows" in missing.json()["detail"]
    assert str(tmp_path) not in missing.text
    assert post(service, [row], "/explain").status_code == 400
    assert post(service, [row, row], "/explain").status_code == 413

    monkeypatch.setenv("PREDICTION_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("BUNDLE_DIR", str(folder))
    assert mlops("explain", answer["prediction_id"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{answer['id']}: {answer['score']:.4f}")
    assert found["contributions"][0]["input"] in said.splitlines()[3]
    capsys.readouterr()
    assert mlops("explain", "nobody knows") == 1
    assert str(tmp_path / "log") in capsys.readouterr().err
    assert mlops("explain", "") == 1

    shutil.copytree(tmp_path / "log", tmp_path / ".deploy/dev/predictions")  # where `make deploy` lets a service write
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREDICTION_LOG")
    assert mlops("explain", answer["prediction_id"]) == 0
    assert capsys.readouterr().out == said


def test_a_bundle_without_rows_to_compare_with_explains_nothing(
    folder: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any]
) -> None:
    service = build(folder, dataclasses.replace(bundle, reference={}), tmp_path, monkeypatch)
    response = post(service, row, "/explain")
    assert response.status_code == 409
    assert "no rows to compare with" in response.json()["detail"]
    service.close()


# --------------------------------------------------------------------------------------------------- The process


class Live:
    """A service in a process of its own, without what only training needs."""

    def __init__(self, folder: Path, log: Path, **settings: str) -> None:
        start = (
            "import sys\n"
            "class Without:\n"
            "    def find_spec(self, name, *more):\n"
            "        if name.partition('.')[0] == 'pyarrow': raise ModuleNotFoundError(name)\n"
            "sys.meta_path.insert(0, Without())\n"
            "from copier_mlops.serving import online\n"
            "from sample_project.service import create_app\n"
            "code = online.serve(create_app); print('modules', *sorted(sys.modules)); sys.exit(code)"
        )
        ours = {"BUNDLE_DIR": str(folder), "PREDICTION_LOG": str(log), "SERVICE_PORT": "0", **settings}
        ours["PYTHONPATH"] = str(ROOT / "src")
        self.process = subprocess.Popen(
            [sys.executable, "-c", start],
            env={**os.environ, **ours},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.lines = [self.process.stdout.readline()]
        assert self.lines[0], self.process.stderr.read() if self.process.stderr else ""
        self.port = json.loads(self.lines[0])["port"]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out + err


def head(length: int, *more: str) -> bytes:
    lines = ["POST /predict HTTP/1.1", "Host: service", f"Content-Length: {length}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def answer_of(connection: socket.socket) -> bytes:
    """One answer, or what there is of it."""
    said = b""
    while b"\r\n\r\n" not in said and (part := connection.recv(65_536)):
        said += part
    length = re.search(rb"content-length: (\d+)", said)
    while length and len(said.partition(b"\r\n\r\n")[2]) < int(length[1]) and (part := connection.recv(65_536)):
        said += part
    return said


def test_a_process_survives_bad_connections_and_loses_nothing_when_it_leaves(
    folder: Path, bundle: Bundle, tmp_path: Path, row: dict[str, Any]
) -> None:
    live = Live(folder, tmp_path / "log", ANSWER_SECONDS="1", MAX_BODY_BYTES="100000")
    body = json.dumps(row).encode()
    whole = head(len(body)) + body
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(live.connect()) for _ in range(300)]
        slow, cut, large, alive = (stack.enter_context(live.connect()) for _ in range(4))
        slow.sendall(head(len(body)) + body[:5])
        cut.sendall(head(len(body)) + body[:5])
        cut.shutdown(socket.SHUT_WR)
        large.sendall(head(3_000_000) + b" " * 3_000_000)
        assert answer_of(large).startswith(b"HTTP/1.1 413")
        for connection in (alive, idle[-1]):
            connection.sendall(whole)
            assert answer_of(connection).startswith(b"HTTP/1.1 200")
        assert answer_of(slow).startswith(b"HTTP/1.1 408")
        for given in (
            b"no http\r\n\r\n",
            head(5, "Transfer-Encoding: chunked") + b"zz\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
        ):
            with live.connect() as odd:
                odd.sendall(given)
                odd.settimeout(0.5)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    assert b" 500 " not in answer_of(odd)

        with live.connect() as odd:
            odd.sendall(b"GET /health/live HTTP/1.1\r\nX-Long: " + b"v" * 33_000 + b"\r\n\r\n")
            assert answer_of(odd).startswith(b"HTTP/1.1 431")

        status = Path(f"/proc/{live.process.pid}/status")
        memory = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.exists() else None

        answered: list[str] = []
        odd_answers: list[str] = []

        def ask_on() -> None:
            over = contextlib.suppress(httpx.TransportError)  # it takes no more
            with over, httpx.Client(base_url=f"http://127.0.0.1:{live.port}") as client:
                while (response := client.post("/predict", content=body)).status_code == 200:
                    answered.append(response.json()["prediction_id"])
                odd_answers.append(response.text)

        threads = [threading.Thread(target=ask_on) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answered) < 20 and not odd_answers:
            time.sleep(0.02)
        code, said = live.stop()
        for thread in threads:
            thread.join()
    assert code == 0, said
    assert odd_answers == []
    logged = [entry["prediction"] for entry in log_reader.entries(tmp_path / "log")]
    assert len(logged) == len(answered) + 2  # whatever it took was answered, and whatever was answered is in the log
    assert set(answered) < set(logged)
    *lines, modules = [line for line in said.splitlines() if line.startswith(("{", "modules"))]
    messages = [json.loads(line)["message"] for line in lines]
    assert [message for message in messages if "precompute" not in message] == ["leaving"]
    trained_with = {"dvc", "mlflow", "optuna", "prefect", "skl2onnx", "typer"}
    if bundle.manifest["runtime"] == "onnx":
        trained_with |= {"cloudpickle", "rich", "sklearn"}  # what reads an estimator brings them
        if memory:
            assert int(memory[1]) < 200_000
    assert not trained_with & set(modules.split())


def test_a_service_that_may_not_start_says_what_to_set(folder: Path, tmp_path: Path) -> None:
    from copier_mlops.serving.online import Service

    with pytest.raises(ProjectError, match="Set API_KEYS"):
        Service(Settings(bundle_dir=folder, prediction_log=tmp_path, service_environment="prod"))


def test_a_start_that_fails_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUNDLE_DIR", str(tmp_path / "nothing"))
    assert online.serve(lambda: online.create_app("Sample project")) == 1
    assert capsys.readouterr().err.startswith("error: ")
