"""One look at production: everything in one report, the same for the same; bad days are told and stop nothing."""

import datetime as dt
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sample_project.schema import CONTRACT

from copier_mlops import ProjectError
from copier_mlops.bundle import serving_bundle
from copier_mlops.contract.contract import mask
from copier_mlops.contract.validation import check_rows
from copier_mlops.data import log_compaction, tables
from copier_mlops.data.prediction_log import PredictionLog
from copier_mlops.monitoring import drift_histograms, monitor
from copier_mlops.monitoring.import_labels import label
from copier_mlops.serving.make_bundle import export
from copier_mlops.settings import Paths, Settings

from ..conftest import Enter, change, mlops

NOW = dt.datetime(2024, 1, 29, 12, tzinfo=dt.UTC)
DAYS = 14.0


@pytest.fixture(scope="session")
def _served(_registered: Path, _enter: Enter, rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose champion has answered for two weeks, and of whose answers half have a label."""
    with pytest.MonkeyPatch.context() as patch:
        folder = _enter(_registered, tmp_path_factory.mktemp("served"), patch)
        export(Settings(), 1, Path("dist/bundle"))
        log = PredictionLog(Path("predictions"), 60)
        log.add(answered(rows, 1, NOW))
        log.close()
        outcomes = rows[[CONTRACT.id, CONTRACT.target]].head(len(rows) // 2)
        outcomes.to_csv("outcomes.csv", index=False)
        label(Settings(), "outcomes.csv")
        change(folder, monitoring={"min_rows": 50, "min_labelled": 50})
    return folder


@pytest.fixture
def served(_served: Path, _enter: Enter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return _enter(_served, tmp_path, monkeypatch)


def answered(rows: pd.DataFrame, version: int, until: dt.datetime) -> list[dict[str, Any]]:
    """Entries as a service writes them, spread over the days before a moment."""
    loaded = serving_bundle.load(Path("dist/bundle"))
    asked = mask(rows.drop(columns=CONTRACT.target), CONTRACT, Settings().mask_key.get_secret_value())
    good = check_rows(asked, loaded.contract, labelled=False).good
    answers = loaded.answers(good).to_dict("records")
    return [
        {
            "prediction": f"{version}p{place}", "id": row[CONTRACT.id], "version": version,
            "at": (until - dt.timedelta(days=DAYS * (1 - place / len(good)))).isoformat(), "way": "online", "inputs": row,
            "answer": answer,
        }
        for place, (row, answer) in enumerate(zip(good.to_dict("records"), answers, strict=True))
    ]  # fmt: skip


def look(*arguments: Any, **options: Any) -> dict[str, Any]:
    """Look at production; what monitor.json says comes back."""
    return monitor.look(*arguments, **options).as_json()


def actions(found: dict[str, Any]) -> list[str]:
    return [one["action"] for one in found["verdict"]["actions"]]


def test_a_look_says_how_production_is(served: Path, rows: pd.DataFrame) -> None:
    found = look(Settings(), NOW)
    assert found == tables.read_json(Paths.LOOK)
    assert (found["version"], found["at"], found["log"]["entries"]) == (1, NOW.isoformat(), len(rows))
    assert found["window"]["rows"] == found["window"]["answers"] == pytest.approx(len(rows) / 2, abs=1)
    assert found["performance"]["rows"] == found["labels"]["joined"] == len(rows) // 2
    assert found["performance"]["worse"] is not None
    expected = tables.read_json(Path("dist/bundle/lineage.json"))["metrics"]
    assert found["performance"]["expected"][found["performance"]["metric"]] == expected[found["performance"]["metric"]]
    assert found["labels"]["waiting"] == len(rows) - len(rows) // 2
    assert {*CONTRACT.features(), *CONTRACT.answers} <= set(found["drift"]["columns"])
    assert found["answer_cost"] > 0
    page = Paths.LOOK_PAGE.read_text()
    assert "a look at production" in page and page.count("data:image/png;base64,") >= 2


def test_what_is_deployed_here_is_looked_at(served: Path) -> None:
    """A service that `make deploy` started writes into a log of its own."""
    before = look(Settings(), NOW)
    place = Path(".deploy/prod")
    place.mkdir(parents=True)
    (place / "state.json").write_text('{"live": {"colour": "blue"}}')
    Path("predictions").rename(place / "predictions")
    after = look(Settings(), NOW)
    assert after["log"]["entries"] == before["log"]["entries"] > 0
    assert after["performance"] == before["performance"]
    Path(".deploy/prod/state.json").write_text("{")
    with pytest.raises(ProjectError, match=r"state\.json is damaged"):
        look(Settings(), NOW)


def test_the_same_look_again_finds_the_same(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look(Settings(), NOW)
    first = Paths.LOOK.read_bytes()
    log_compaction.compact(Path("predictions"), 100_000)
    monkeypatch.setattr(monitor, "LOT", 1_000_000)
    look(Settings(), NOW)
    assert Paths.LOOK.read_bytes() == first
    lines = Paths.LOOKS.read_text().splitlines()
    assert len(lines) == 2 and lines[0] == lines[1]


def test_who_was_faster_does_not_count_in_a_replay(
    served: Path, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a day is asked at one moment, and each of it twice; it is noted as it happens to be ready, under other names each time."""
    change(served, evaluation={"bootstrap": 50})
    monkeypatch.setattr(drift_histograms, "RESERVOIR", 250)
    entries = [{**one, "at": f"{one['at'][:10]}T00:00:00+00:00"} for one in answered(rows, 1, NOW)]
    late = {**entries[0], "at": "2030-01-01T00:00:00+00:00"}
    found = []
    for seed, lot in ((1, 1_000_000), (2, 37), (3, 100)):
        shutil.rmtree("predictions")
        monkeypatch.setattr(monitor, "LOT", lot)
        random.Random(seed).shuffle(entries)
        noted = sorted(entries, key=lambda one: str(one["at"]))
        _log(
            [
                {**one, "prediction": f"{seed * 7919 * place % 10_007} {place}"}
                for place, one in enumerate([*noted, late])
            ]
        )
        report = look(Settings(), NOW, replay=True)
        found.append({name: report[name] for name in ("verdict", "performance", "drift", "labels", "traffic", "log")})
    assert found[0] == found[1] == found[2]


def test_the_window_can_be_chosen(served: Path, rows: pd.DataFrame) -> None:
    found = look(Settings(), NOW, NOW - dt.timedelta(days=DAYS), NOW - dt.timedelta(days=DAYS / 2))
    assert found["window"]["rows"] == pytest.approx(len(rows) / 2, abs=1)
    assert found["performance"]["rows"] == len(rows) // 2
    for since, until in ((NOW, NOW - dt.timedelta(1)), (None, NOW + dt.timedelta(1))):
        with pytest.raises(ProjectError, match="are not in that order"):
            look(Settings(), NOW, since, until)


def test_a_training_is_proposed_once(served: Path, rows: pd.DataFrame) -> None:
    shutil.rmtree("predictions")
    entries = answered(rows, 1, NOW)
    same = entries[0]["inputs"]
    _log([{**one, "inputs": {**same, CONTRACT.id: one["id"]}} for one in entries])
    change(served, monitoring={"cool_down_hours": 72})
    told = look(Settings(), NOW)
    assert told["drift"]["drifted"] and "retrain" not in actions(told)
    assert "while the labels show no worse answers" in str(told["verdict"])
    shutil.rmtree("labels")
    first = look(Settings(), NOW)
    assert first["drift"]["drifted"] and "retrain" in actions(first)
    assert first["verdict"] == look(Settings(), NOW)["verdict"]  # nor does a look forbid itself
    again = look(Settings(), NOW + dt.timedelta(hours=20))
    assert "retrain" not in actions(again) and "no training is proposed before" in str(again["verdict"])
    assert "retrain" in actions(look(Settings(), NOW + dt.timedelta(hours=73)))


def _log(entries: list[Any]) -> None:
    log = PredictionLog(Path("predictions"), 60)
    log.add(entries)
    log.close()


# ------------------------------------------------------------------------------------------------------ Bad days


@pytest.mark.parametrize("kind", ["none", "empty", "nothing in the window", "one"])
def test_nothing_or_next_to_nothing_was_answered(kind: str, served: Path, rows: pd.DataFrame) -> None:
    if kind != "nothing in the window":
        shutil.rmtree("predictions")
    if kind == "empty":
        Path("predictions").mkdir()
    if kind == "one":
        _log(answered(rows.head(1), 1, NOW))
    now = NOW + dt.timedelta(days=100) if kind == "nothing in the window" else NOW
    found = look(Settings(), now)
    assert found["window"]["answers"] == (1 if kind == "one" else 0) or kind == "one"
    assert found["verdict"]["status"] == "unknown"
    assert found["performance"]["worse"] is None
    assert actions(found) in ([], ["tell"])
    assert "a look at production" in Paths.LOOK_PAGE.read_text()


def test_damaged_frames_and_a_clock_that_jumps_are_counted(served: Path, rows: pd.DataFrame) -> None:
    _log([{"prediction": "x", "id": "y"}, *answered(rows.head(30), 1, NOW + dt.timedelta(days=30))])
    with next(Path("predictions").glob("*.log")).open("ab") as file:
        file.write(b"nonsense\n")
    found = look(Settings(), NOW)
    assert (found["log"]["damaged"], found["log"]["malformed"]) == (1, 1)
    assert found["log"]["future"] > 0
    assert "a clock is wrong" in " ".join(found["troubles"])
    assert "tell" in actions(found)
    replayed = look(Settings(), NOW, replay=True)
    assert "a clock is wrong" not in str(replayed) and replayed["log"] == found["log"]


def test_a_day_of_the_log_that_cannot_be_read(served: Path) -> None:
    log_compaction.compact(Path("predictions"), 100_000)
    broken = sorted(Path("predictions").glob("*.parquet"))[3]
    broken.write_bytes(broken.read_bytes()[:100])
    found = look(Settings(), NOW)
    assert found["log"]["entries"] == sum(found["traffic"]["days"].values()) > 0  # what came before it counts
    assert "and no further" in " ".join(found["troubles"])


@pytest.mark.parametrize("uri", ["nowhere.csv", "postgresql://host/db", "s3://bucket/labels", "labels"])
def test_without_labels_it_looks_at_the_rest(uri: str, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("labels")
    monkeypatch.setenv("LABELS_URI", uri)
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)  # of a store that is down
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    found = look(Settings(), NOW)
    assert found["performance"]["rows"] == 0 and found["window"]["rows"] > 0
    assert bool(found["labels"]["troubles"]) == (uri != "labels")
    assert ("labels could not be read" in " ".join(found["troubles"])) == (uri != "labels")


def test_labels_that_say_nothing_are_counted_and_change_nothing(served: Path, rows: pd.DataFrame) -> None:
    """Said again, contradictory, of nobody who was asked, and from the future; about answers that have no other label."""
    clean, half = look(Settings(), NOW), len(rows) // 2
    values, others = rows[CONTRACT.target].astype("str"), rows[CONTRACT.target].drop_duplicates().astype("str").head(2)
    lines = [(name, value, "") for name, value in zip(rows[CONTRACT.id].head(20), values.head(20), strict=True)]
    lines += [(name, value, "") for name in rows[CONTRACT.id].iloc[half : half + 10] for value in others]
    lines += [(f"nobody {number}", others.iloc[0], "") for number in range(30)]
    lines += [(name, others.iloc[0], "2024-02-03T00:00:00Z") for name in rows[CONTRACT.id].iloc[half + 10 : half + 50]]
    wrong = pd.DataFrame(lines, columns=[CONTRACT.id, CONTRACT.target, "labelled_at"])
    wrong.to_csv("labels/wrong.csv", index=False)
    found = look(Settings(), NOW)
    aside = {name: count - clean["labels"]["aside"].get(name, 0) for name, count in found["labels"]["aside"].items()}
    assert aside.pop("unknown", 0) + aside.pop("no_id", 0) == 30  # as the id is a text or a number
    assert {name: more for name, more in aside.items() if more} == {"repeated": 20, "contradictory": 20, "future": 40}
    assert found["labels"]["joined"] == clean["labels"]["joined"] == half
    assert found["performance"] == clean["performance"]
    assert "40 of" in (said := " ".join(found["troubles"])) and "is from the future" in said and "contradicts" in said


def test_labels_of_one_class_are_no_alarm(served: Path, rows: pd.DataFrame) -> None:
    shutil.rmtree("labels")
    same = rows[[CONTRACT.id, CONTRACT.target]].assign(**{CONTRACT.target: rows[CONTRACT.target].iloc[0]})
    same.to_csv("outcomes.csv", index=False)
    label(Settings(), "outcomes.csv")
    found = look(Settings(), NOW)
    assert found["performance"]["rows"] == len(rows)
    if found["performance"]["metric"] in ("auc", "r2"):  # which one class, or one number, leaves undefined
        assert found["performance"]["worse"] is None
        assert found["performance"]["metrics"][found["performance"]["metric"]] is None
    assert "a look at production" in Paths.LOOK_PAGE.read_text()


def test_a_source_that_is_away_is_a_note(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_URI", str(served / "nowhere"))
    found = look(Settings(), NOW)
    assert found["newest"] is None
    assert "nobody knows how new the source is" in " ".join(found["notes"])


def test_a_bundle_that_is_missing_or_of_an_earlier_release(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = serving_bundle.load_isolated(Path("dist/bundle"))
    monkeypatch.setattr(serving_bundle, "load_isolated", lambda *given: _old(loaded))
    found = look(Settings(), NOW)
    assert found["drift"]["drifted"] is None and "nothing was compared with the training" in found["troubles"][0]
    assert found["performance"]["rows"] > 0
    shutil.rmtree("dist")
    with pytest.raises(ProjectError, match="there is no bundle in dist/bundle"):
        look(Settings(), NOW)


def _old(loaded: Any) -> Any:
    import dataclasses

    return dataclasses.replace(loaded, reference={"version": 1})


def test_what_was_measured_where_the_facts_are_gone(served: Path) -> None:
    Paths.FACTS.unlink()
    shutil.rmtree(".cache/facts", ignore_errors=True)
    found = look(Settings(), NOW)["performance"]
    assert found["expected"] and all(line["expected"] is None for line in found["slices"])
    assert found["worse"] is not None


def test_a_new_version_beside_the_one_before(served: Path, rows: pd.DataFrame) -> None:
    export(Settings(), 2, Path("dist/bundle"))
    shutil.rmtree("predictions")
    _log([*answered(rows.tail(200), 1, NOW - dt.timedelta(days=DAYS)), *answered(rows.head(200), 2, NOW)])
    found = look(Settings(), NOW)
    assert (found["version"], found["performance"]["before"]["version"]) == (2, 1)
    assert {name: one["rows"] for name, one in found["traffic"]["versions"].items()} == {"1": 200, "2": 200}
    assert (
        found["performance"]["rows"] == 200 and found["performance"]["before"]["worse"] is None
    )  # of which none has a label


# ------------------------------------------------------------------------------------------------------- Command


def test_the_command_prints_and_logs(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mlops("monitor", "--now", "2024-01-29T12:00Z") == 0
    said = capsys.readouterr()
    assert "answers from 2024-01-22 12:00 to 2024-01-29 12:00 UTC" in said.out and "report.html" in said.out
    assert not said.err
    assert json.loads(Paths.LOOKS.read_text())["at"] == NOW.isoformat()
    from copier_mlops.monitoring.monitor_runs import Looks

    looks = Looks(Settings())
    kept = looks.client.search_runs([looks.looks])
    assert len(kept) == 1 and kept[0].data.tags["version"] == "1"
    assert kept[0].data.metrics["rows"] == tables.read_json(Paths.LOOK)["window"]["rows"]


def test_an_outage_of_mlflow_is_told(
    served: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert mlops("monitor", "--now", "2024-01-29T12:00Z", "--since", "2024-01-15") == 0
    assert "this look is not in MLflow: MLflow at http://127.0.0.1:9 is not responding" in capsys.readouterr().err
    assert Paths.LOOK.exists()


@pytest.mark.parametrize("words", [["--now", "soon"], ["--since", "2024-01-30", "--now", "2024-01-29"]])
def test_a_moment_that_is_none(words: list[str], served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mlops("monitor", *words) == 1
    assert capsys.readouterr().err.startswith("error: ")
