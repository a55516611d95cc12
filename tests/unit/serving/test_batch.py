"""A table of any size comes back as answers, a row per row and in order, whatever happens on the way."""

import dataclasses
import gzip
import itertools
import json
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sample_project import schema, source

from copier_mlops import Column, Contract, ProjectError, UnreachableError
from copier_mlops.bundle import bundle, bundle_files
from copier_mlops.bundle.bundle import Bundle
from copier_mlops.contract.contract import as_text, mask
from copier_mlops.contract.synthetic import made_up
from copier_mlops.contract.validation import REASON
from copier_mlops.data import readers, tables
from copier_mlops.data.log_reader import entries
from copier_mlops.serving import batch, batch_logging, partitioned_output
from copier_mlops.serving.batch_logging import PREDICTION
from copier_mlops.serving.request_parser import Reader
from copier_mlops.settings import Settings

from ..conftest import CLOSE, mlops, spoiled

CONTRACT = schema.CONTRACT
PART = 150


@pytest.fixture(scope="module")
def folder(_stages_ran: Path) -> Path:
    return _stages_ran / "models/bundle"


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Bundle:
    return bundle.load(folder)


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is much here; and files are written as computers do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(readers, "ROWS", 100)
    monkeypatch.setattr(batch, "PART_ROWS", PART)
    if hasattr(source, "TABLE"):
        plain = dataclasses.replace(source.TABLE, separator=",", encoding="utf-8", styles={}, zone="UTC")
        monkeypatch.setattr(source, "TABLE", plain)


@pytest.fixture
def some(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as the source has them, without the target; named, also where the table's own are only counted."""
    found = rows.drop(columns=CONTRACT.target).head(400)
    if CONTRACT.id not in found:
        found.insert(0, CONTRACT.id, range(1, len(found) + 1))
    return found


Score = Callable[..., batch.Scored]


@pytest.fixture
def score(loaded: Bundle, folder: Path) -> Score:
    """Answer `rows`, into `answers`; what it says is in `score.said`."""

    def run(given: str = "rows", target: str = "answers", model: Bundle = loaded, **more: Any) -> batch.Scored:
        return batch.score(model, given, target, Settings(**more), folder, said.append)

    said: list[str] = []
    run.said = said  # type: ignore[attr-defined]
    return run


def in_files(rows: pd.DataFrame, *sizes: int) -> list[Path]:
    """Write rows into files of a folder, so many into each."""
    ends = np.cumsum([0, *sizes])
    files = []
    for number, (begin, end) in enumerate(itertools.pairwise(ends)):
        files.append(Path("rows", f"{number}.parquet"))
        tables.write(rows.iloc[begin:end], files[-1])
    return files


def answers(target: str = "answers") -> pd.DataFrame:
    files = sorted(Path(target).glob("part-*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def expected(loaded: Bundle, rows: pd.DataFrame) -> pd.DataFrame:
    return loaded.answer(mask(rows, CONTRACT, "of the tests").reset_index(drop=True))


def agree(found: pd.DataFrame, loaded: Bundle, rows: pd.DataFrame) -> None:
    """Whether there is the answer to each row, once and in its place."""
    due = expected(loaded, rows)
    named, each = ["prediction"] * bool(CONTRACT.classes), CONTRACT.answers if len(CONTRACT.answers) > 1 else []
    assert list(found) == [CONTRACT.id, *named, "score", *each, "version", PREDICTION, REASON]
    ids = as_text(mask(rows, CONTRACT, "of the tests")[CONTRACT.id])
    assert as_text(found[CONTRACT.id]).tolist() == ids.tolist()
    for name in ["score", *each]:
        assert found[name].to_numpy() == pytest.approx(due[name].to_numpy("float64"), nan_ok=True, **CLOSE)
    assert found[REASON].astype("str").fillna("").tolist() == due[REASON].tolist()


# ------------------------------------------------------------------------------------------------------ Answers


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.csv.gz", "rows.jsonl"])
def test_every_row_of_a_file_is_answered(score: Score, loaded: Bundle, some: pd.DataFrame, name: str) -> None:
    some = some.head(200)
    if name.endswith(".parquet"):
        tables.write(some, Path(name))
    elif name.endswith("l"):
        text = some.map(lambda value: value.isoformat() if isinstance(value, pd.Timestamp) else value)
        text.to_json(name, orient="records", lines=True, double_precision=15)
    else:
        some.to_csv(name, index=False)
    done = score(name)
    assert done == batch.Scored(0, 200, 0, 0)
    agree(answers(), loaded, some)


def test_files_of_a_folder_and_of_a_glob_are_one_table(score: Score, loaded: Bundle, some: pd.DataFrame) -> None:
    in_files(some, 100, 1, 299)
    score()
    agree(answers(), loaded, some)
    score("rows/[02].parquet", "others")
    agree(answers("others"), loaded, some.drop(index=some.index[100]))


@pytest.mark.parametrize("target", ["there/answers.csv", "answers.parquet"])
def test_answers_may_be_one_file(score: Score, loaded: Bundle, some: pd.DataFrame, target: str) -> None:
    in_files(some, 400)
    score(target=target)
    found = tables.read_any(Path(target))
    agree(found, loaded, some)
    assert score(target=target).nothing_to_do
    Path(target).unlink()
    assert score(target=target).kept == 0
    assert len(tables.read_any(Path(target))) == 400
    assert not list(Path().rglob("part-*"))


def test_rows_that_break_the_contract_have_a_reason_in_their_place(
    score: Score, loaded: Bundle, some: pd.DataFrame
) -> None:
    broken, reason = spoiled(some, [3, 7, 201])
    in_files(broken, 400)
    assert score().set_aside == 3
    found = answers()
    assert found.index[found["score"].isna()].tolist() == [3, 7, 201]
    assert found[REASON].iloc[201].startswith(reason)
    agree(found, loaded, broken)


def test_rows_with_a_value_that_the_training_had_not_are_answered_and_say_so(
    score: Score, loaded: Bundle, some: pd.DataFrame
) -> None:
    name = CONTRACT.features()[0]
    columns = [
        dataclasses.replace(one, nullable=False, unseen="pool") if one.name == name else one for one in CONTRACT.columns
    ]
    pooled = dataclasses.replace(loaded, contract=Contract(tuple(columns)))
    some[name] = some[name].astype("object").where(some.index != 5, None)
    in_files(some, 400)
    assert score(model=pooled, log_batch_rows=400, prediction_log=Path("log")).set_aside == 0
    found = answers()
    assert found["score"].notna().all() and found[PREDICTION].notna().all()
    assert found[REASON].iloc[5] == f"{name}: not seen in training (missing)" and (found[REASON] != "").sum() == 1


def test_rows_without_a_name_are_called_by_their_number(score: Score, some: pd.DataFrame) -> None:
    in_files(some.drop(columns=CONTRACT.id), 100, 300)
    score()
    names = pd.DataFrame({CONTRACT.id: range(1, 401)})
    assert (
        as_text(answers()[CONTRACT.id]).tolist() == as_text(mask(names, CONTRACT, "of the tests")[CONTRACT.id]).tolist()
    )


def test_other_columns_are_not_looked_at(score: Score, loaded: Bundle, some: pd.DataFrame) -> None:
    in_files(some.assign(**{CONTRACT.target: "nonsense", "another": 1}), 400)
    score()
    agree(answers(), loaded, some)


class Third:
    """Answers three classes by an input."""

    classes_ = np.array([0.0, 1.0, 2.0])

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        share = features["x"].to_numpy() / 100
        return np.column_stack([share, (1 - share) / 2, (1 - share) / 2])


@pytest.mark.parametrize("kind", ["integer", "number", "string"])
def test_many_classes_and_ids_of_any_kind(score: Score, kind: Any) -> None:
    columns = (Column("id", kind, "id"), Column("x", "number", minimum=0, maximum=100))
    contract = Contract((*columns, Column("y", "string", "target", allowed=("a", "b", "c"))))
    model = Bundle({"version": 4}, contract, lambda rows: rows[["x"]], Third(), {}, digest="third")
    rows = made_up(contract, 200, 1).drop(columns="y").astype({"id": object})
    rows.loc[5, "id"] = None
    rows.to_csv("rows.csv", index=False)
    assert score("rows.csv", model=model) == batch.Scored(4, 200, 1, 0)
    found = answers()
    assert list(found) == ["id", "prediction", "score", "score a", "score b", "score c", "version", PREDICTION, REASON]
    assert found["id"].drop(index=5).tolist() == rows["id"].drop(index=5).tolist()
    assert found.loc[5, "id"] is None or pd.isna(found.loc[5, "id"])
    assert found["score"].max() == pytest.approx(max(rows["x"]) / 100)
    assert pq.read_schema(next(Path("answers").glob("part*"))).equals(batch.answers_schema(contract))


# ------------------------------------------------------------------------------------------------------ The log


def test_what_was_answered_is_in_the_log_as_other_ways_write_it(score: Score, some: pd.DataFrame) -> None:
    broken, _ = spoiled(some, [3])
    in_files(broken, 400)
    score()
    kept = {entry["prediction"]: entry for entry in entries(Path("predictions"))}
    found = answers()
    assert found.index[found[PREDICTION].isna()].tolist() == [3]
    found = found.drop(index=3)
    assert set(found[PREDICTION]) == set(kept)

    reader = Reader(CONTRACT, 1000, "of the tests")
    text = some.to_json(orient="records", date_format="iso", date_unit="us", double_precision=15)
    asked = reader.read(text.encode())
    inputs = []
    for number, row in found.iterrows():
        entry = kept[row[PREDICTION]]
        assert set(entry) == {"prediction", "id", "version", "at", "way", "inputs", "answer"}
        assert (entry["way"], entry["version"], entry["answer"]["score"]) == ("batch", 0, row["score"])
        assert entry["id"] == reader.id(asked.rows[number])
        inputs.append(entry["inputs"])
    personal = [column.name for column in CONTRACT.columns if column.personal]  # a pseudonym would be masked again
    for name in personal:
        assert not {row[name] for row in inputs} & set(as_text(some[name]).dropna())
    again = reader.frame([reader.read(json.dumps(inputs).encode())])
    wanted = reader.frame([asked]).drop(index=3).reset_index(drop=True)
    pd.testing.assert_frame_equal(again.drop(columns=personal), wanted.drop(columns=personal))


@pytest.mark.parametrize(("most", "logged"), [(0, 0), (7, 14), (150, 300), (1000, 400)])
def test_of_a_part_so_many_rows_are_logged(score: Score, some: pd.DataFrame, most: int, logged: int) -> None:
    in_files(some, 400)
    score(log_batch_rows=most)
    found = answers()[PREDICTION].dropna()
    assert len(found) == logged
    assert sorted(entry["prediction"] for entry in entries(Path("predictions"))) == sorted(found)
    assert Path("predictions").exists() is (most > 0)


def test_a_log_that_cannot_be_written_costs_no_answers(score: Score, loaded: Bundle, some: pd.DataFrame) -> None:
    in_files(some, 400)
    Path("predictions").write_text("in the way")
    score()
    agree(answers(), loaded, some)
    assert score.said == [  # type: ignore[attr-defined]
        "400 answers are not in the prediction log: it cannot be written to, or is too slow"
    ]


# --------------------------------------------------------------------------------------------------- Interrupted


@pytest.mark.parametrize("step", range(7))
def test_a_run_that_is_interrupted_anywhere_goes_on(
    score: Score, loaded: Bundle, some: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    in_files(some, 100, 130, 170)
    put, count = partitioned_output.Parts._put, iter(range(100))

    def interrupted(self: partitioned_output.Parts, name: str, content: Any) -> None:
        if next(count) == step:
            raise KeyboardInterrupt
        put(self, name, content)

    monkeypatch.setattr(partitioned_output.Parts, "_put", interrupted)
    try:
        score()
    except KeyboardInterrupt:
        before = {file: file.stat().st_mtime_ns for file in Path("answers").glob("part-*")}
        done = score()
        after = {file: file.stat().st_mtime_ns for file in Path("answers").glob("part-*")}
        assert done.kept == sum(pq.read_metadata(file).num_rows for file in before if before[file] == after.get(file))
        assert done.kept == (0, 0, 0, 200, 200, 400)[step]
    else:
        assert step == 6  # two for each of two parts, and one at either end
    assert score().nothing_to_do
    agree(answers(), loaded, some)


@pytest.mark.parametrize("step", range(9))
def test_a_run_that_is_interrupted_anywhere_logs_no_answer_twice(
    score: Score, some: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """And none that is not there; where it is interrupted between a part and its log, the log lacks this part."""
    in_files(some, 400)
    count, missed = iter(range(100)), []

    def interrupting(owner: type, name: str) -> None:
        act = getattr(owner, name)

        def interrupted(self: Any, *given: Any) -> None:
            if next(count) == step:
                missed.append(name)
                raise KeyboardInterrupt
            act(self, *given)

        monkeypatch.setattr(owner, name, interrupted)

    interrupting(partitioned_output.Parts, "_put")
    interrupting(batch_logging.Notes, "add")
    try:
        score()
    except KeyboardInterrupt:
        score()
    else:
        assert step == 8  # two for each of two parts, one for its log, and one at either end
    logged = [entry["prediction"] for entry in entries(Path("predictions"))]
    named = answers()[PREDICTION].tolist()
    assert len(set(logged)) == len(logged)
    assert set(logged) <= set(named)
    assert len(named) - len(logged) == (200 if missed == ["add"] else 0)


def test_what_changed_is_answered_anew(score: Score, loaded: Bundle, some: pd.DataFrame) -> None:
    files = in_files(some, 200, 100)
    score()
    another = some.iloc[::-1]
    tables.write(another.iloc[:200], files[0])
    assert score().kept == 0
    assert score.said == ["0.parquet is not what it was before: all of it is answered anew"]  # type: ignore[attr-defined]
    agree(answers(), loaded, pd.concat([another.iloc[:200], some.iloc[200:300]]))
    files[0].rename("rows/9.parquet")
    assert score().kept == 0
    agree(answers(), loaded, pd.concat([some.iloc[200:300], another.iloc[:200]]))


def test_another_model_answers_all_of_it_anew(score: Score, loaded: Bundle, some: pd.DataFrame) -> None:
    in_files(some, 400)
    score()
    newer = dataclasses.replace(loaded, digest="newer", manifest={**loaded.manifest, "version": 9})
    assert score(model=newer).kept == 0
    assert score.said == ["another model answered before: all of it is answered anew"]  # type: ignore[attr-defined]
    assert set(answers()["version"]) == {9}


@pytest.mark.parametrize("target", ["answers", "answers.parquet"])
def test_a_file_that_came_later_is_added(score: Score, loaded: Bundle, some: pd.DataFrame, target: str) -> None:
    in_files(some, 200)
    score(target=target)
    in_files(some, 200, 200)
    assert score(target=target).kept == (200 if target == "answers" else 0)
    agree(answers() if target == "answers" else pd.read_parquet(target), loaded, some)


def test_fewer_files_have_fewer_answers(score: Score, loaded: Bundle, some: pd.DataFrame) -> None:
    files = in_files(some, 150, 150)
    score()
    files[1].unlink()
    assert score().rows == 150
    agree(answers(), loaded, some.head(150))


# ------------------------------------------------------------------------------------------------------ Bad days


def test_a_file_that_cannot_be_read_is_named_and_a_repaired_one_goes_on(
    score: Score, loaded: Bundle, some: pd.DataFrame
) -> None:
    files = in_files(some, 180, 120, 100)
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:-100])
    with pytest.raises(ProjectError, match=r"1\.parquet cannot be read"):
        score()
    agree(answers(), loaded, some.head(180))
    with pytest.raises(ProjectError, match=r"1\.parquet cannot be read"):
        score()
    files[1].write_bytes(whole)
    assert score().kept == 180
    agree(answers(), loaded, some)


def test_a_file_that_breaks_off_is_answered_from_its_beginning_when_it_is_repaired(
    score: Score, loaded: Bundle, some: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "BLOCK", 1 << 14)
    Path("rows").mkdir()
    some.head(100).to_csv("rows/0.csv", index=False)
    text = some.iloc[100:].to_csv(index=False)
    content = gzip.compress(text.encode())
    Path("rows/1.csv.gz").write_bytes(content[: len(content) * 9 // 10])
    with pytest.raises(ProjectError, match=r"1\.csv\.gz cannot be read"):
        score()
    Path("rows/1.csv.gz").write_bytes(gzip.compress(text.replace("\n", "\r\n").encode()))
    score()
    agree(answers(), loaded, some)


def test_what_cannot_be_answered_is_refused(score: Score, some: pd.DataFrame) -> None:
    with pytest.raises(ProjectError, match="there is no table at rows"):
        score()
    in_files(some.head(0), 0)
    with pytest.raises(ProjectError, match="has no rows; nothing was written"):
        score()
    name = CONTRACT.features()[0]
    tables.write(some.drop(columns=name), Path("rows/1.parquet"))
    with pytest.raises(ProjectError, match=rf"rows/1\.parquet: .*column {name} is missing"):
        score()
    with pytest.raises(ProjectError, match="needs QUERY"):
        score("sqlite:///rows.db")
    assert not list(Path("answers").glob("part-*"))


def test_a_place_that_is_not_for_answers_is_refused(score: Score, some: pd.DataFrame) -> None:
    in_files(some, 400)
    with pytest.raises(ProjectError, match="holds other files than answers"):
        score("rows/0.parquet", "rows")
    with pytest.raises(ProjectError, match="inside of rows"):
        score(target="rows/answers")
    Path("file").write_text("in the way")
    with pytest.raises(ProjectError, match=r"file cannot be written to: .* Name another OUTPUT"):
        score(target="file")
    with pytest.raises(ProjectError, match="cannot be written to"):
        score(target="file/answers.csv")


def test_a_lock_that_is_a_link_does_not_empty_the_file_behind_it(score: Score, some: pd.DataFrame) -> None:
    in_files(some, 100)
    Path("victim").write_text("precious")
    Path("answers").mkdir()
    Path("answers/.lock").symlink_to(Path("victim").resolve())
    with pytest.raises(ProjectError, match=r"answers/\.lock is a symbolic link"):
        score()
    Path("answers/.lock").unlink()
    Path("answers/.lock").hardlink_to("victim")
    assert score().rows == 100
    assert Path("victim").read_text() == "precious"


def test_an_id_that_is_a_formula_is_text_in_a_csv_file(score: Score, some: pd.DataFrame) -> None:
    rows = some.head(2).copy()
    rows[CONTRACT.id] = ["=cmd|' /C calc'!A0", "plain"]
    in_files(rows, 2)
    score(target="answers.csv")
    masked = mask(rows, CONTRACT, "of the tests")[CONTRACT.id].tolist()
    expected_ids = [f"'{text}" if text.startswith("=") else text for text in masked]
    assert pd.read_csv("answers.csv")[CONTRACT.id].tolist() == expected_ids


def test_two_runs_at_once_are_one(score: Score, some: pd.DataFrame) -> None:
    in_files(some, 400)
    with partitioned_output.Parts("answers").held(), pytest.raises(ProjectError, match="another run writes to answers"):
        score()
    assert score().rows == 400


def test_a_full_disk_is_explained_and_the_run_goes_on_afterwards(
    score: Score, loaded: Bundle, some: pd.DataFrame, small_disk: Callable[[int], None]
) -> None:
    in_files(some, 400)
    small_disk(1500)
    with pytest.raises(ProjectError, match="the disk is full"):
        score()
    small_disk(resource.RLIM_INFINITY)
    score()
    agree(answers(), loaded, some)


def test_a_journal_that_is_no_longer_one_begins_anew(score: Score, some: pd.DataFrame) -> None:
    in_files(some, 400)
    score()
    Path("answers/_journal.json").write_text("{")
    assert score().kept == 0
    next(Path("answers").glob("part-*")).unlink()
    assert score().kept == 0
    assert len(answers()) == 400


# ------------------------------------------------------------------------------------------------------- Where


def test_a_cluster_gives_the_same_answers(score: Score, loaded: Bundle, some: pd.DataFrame) -> None:
    import distributed

    in_files(some, 400)
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        score(scheduler_address=cluster.scheduler_address)
        agree(answers(), loaded, some)
        with pytest.raises(bundle_files.BundleError, match="was replaced since it was loaded"):
            score(
                target="others",
                model=dataclasses.replace(loaded, digest="before"),
                scheduler_address=cluster.scheduler_address,
            )


def test_a_scheduler_that_is_not_there_is_told(
    score: Score, some: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "PATIENCE", 0.5)
    in_files(some, 400)
    with pytest.raises(UnreachableError, match="does not answer, or has no worker"):
        score(scheduler_address="tcp://127.0.0.1:9")


def test_a_worker_loads_the_bundle_once_and_answers_alike(
    folder: Path, loaded: Bundle, some: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_loaded", {})
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    rows = mask(some, CONTRACT, "of the tests").reset_index(drop=True)
    found = batch.answer_there(loaded.digest, files, rows)
    assert found.equals(batch.answer_there(loaded.digest, {}, rows))
    assert found.equals(batch.answer(loaded, rows))


# ------------------------------------------------------------------------------------------------------ Command


def command(*words: str) -> int:
    return mlops("batch-predict", *words)


def made_here(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the process that makes the bundle of a registered version print this one."""
    printed = json.dumps({"folder": str(folder), "digest": bundle.digest(folder)})

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert words[3:4] == ["batch-bundle"]
        return subprocess.CompletedProcess(words, 0, printed)

    monkeypatch.setattr(subprocess, "run", run)


def test_the_command_says_what_it_did(
    folder: Path, some: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, _ = spoiled(some, [3])
    in_files(broken, 400)
    assert command("rows", "answers", "--bundle", str(folder)) == 0
    assert "answered 399 of 400 rows; answers; 1 rows break the contract" in capsys.readouterr().out
    made_here(monkeypatch, folder)
    assert command("rows", "answers") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert command("nowhere", "answers") == 1
    assert "error: there is no table at nowhere" in capsys.readouterr().err
    assert command("", "") == 1
    assert "make score INPUT=" in capsys.readouterr().err


def test_only_a_bundle_that_was_made_here_needs_no_signature(
    folder: Path, some: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_files(some, 400)
    monkeypatch.setenv("SERVICE_ENVIRONMENT", "prod")
    assert command("rows", "answers", "--bundle", str(folder)) == 1
    assert "a bundle has to be signed" in capsys.readouterr().err
    made_here(monkeypatch, folder)
    assert command("rows", "answers", "--version", "3") == 0
    assert json.loads(Path("answers/_journal.json").read_text())["finished"]
