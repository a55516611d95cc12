"""A bundle answers as it did when it was made, whatever has become of today's code, or it is not loaded at all."""

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sample_project import model

from copier_mlops import Column, Contract, __version__
from copier_mlops.bundle import bundle, bundle_files
from copier_mlops.bundle.bundle_files import BundleError
from copier_mlops.contract.contract import to_csv

from ..conftest import ROOT, replaced_while_read

SCHEMA = """
from copier_mlops import Column, Contract

CONTRACT = Contract((
    Column("id", "string", "id"),
    Column("at", "timestamp", "time"),
    Column("x", "number", minimum=0),
    Column("kind", "string", nullable=True),
    Column("y", "number", "target"),
))
"""
FEATURES = """
from .schema import CONTRACT

def build_features(rows):
    assert CONTRACT.target not in rows
    return rows[["x"]] * 2
"""
ROWS = pd.DataFrame(
    {
        "id": ["a", "b", "c"],
        "at": pd.to_datetime(
            ["2024-01-01T00:00:00.000", "2024-01-02T03:04:05.678", "2024-01-03T00:00:00.000"], utc=True
        ),
        "x": [1.0, 2.5, 0.75],
        "kind": ["k", None, "k"],
    }
)


class Doubler:
    """Answers twice its input."""

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        return 2 * features["x"].to_numpy()


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A schema.py and features.py that a test may edit."""
    folder = tmp_path / "core"
    folder.mkdir()
    (folder / "schema.py").write_text(SCHEMA)
    (folder / "features.py").write_text(FEATURES)
    monkeypatch.chdir(ROOT)  # its model.py is not the project's of the test
    monkeypatch.setattr(bundle.project, "folder", lambda: folder)
    return folder


@pytest.fixture
def saved(code: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "bundle"
    bundle.save(folder, Doubler(), {"rows": 3}, ROWS)
    return folder


def test_what_is_loaded_is_what_was_saved(saved: Path) -> None:
    loaded = bundle.load(saved)
    assert loaded.manifest == {"rows": 3, bundle_files.RELEASE: __version__}
    assert loaded.score(ROWS).tolist() == [4.0, 10.0, 3.0]
    assert loaded.score(ROWS.iloc[:0]).shape == (0,)
    assert bundle.verify(loaded) == 0
    assert bundle.verify(bundle.load(saved)) == 0  # loading has left nothing behind that was not there


@pytest.mark.parametrize(
    ("release", "loads"),
    [("2.0.0", True), ("1.9.9", True), ("", True), ("2.0.1", False), ("2.10.0rc1", False), ("10.0.0", False)],
)
def test_a_bundle_of_a_newer_release_is_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch, release: str, loads: bool
) -> None:
    """Releases before 2.0 recorded none."""
    monkeypatch.setattr(bundle_files.copier_mlops, "__version__", "2.0.0")
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest.pop(bundle_files.RELEASE)
    bundle_files.write_json(saved / "manifest.json", manifest | ({bundle_files.RELEASE: release} if release else {}))
    bundle_files.write_checksums(saved)
    if loads:
        assert bundle.load(saved).manifest.get(bundle_files.RELEASE, "") == release
        return
    with pytest.raises(BundleError, match=rf"made by release {release} .* newer than the runtime here \(2\.0\.0\)"):
        bundle.load(saved)


def test_the_same_training_writes_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    bundle.save(tmp_path / "again", Doubler(), {"rows": 3}, ROWS)
    assert bundle_files.digest(tmp_path / "again") == bundle_files.digest(saved)
    bundle.save(tmp_path / "again", Doubler(), {"rows": 4}, ROWS)
    assert bundle_files.digest(tmp_path / "again") != bundle_files.digest(saved)


def test_a_classifier_answers_the_probability_of_the_class() -> None:
    class Coin:
        def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
            return np.tile([0.3, 0.7], (len(features), 1))

    assert bundle.score(Coin(), ROWS).tolist() == [0.7] * 3


@pytest.mark.parametrize("name", ["model.pkl", "manifest.json", "expected.json", "code/features.py", "code/schema.py"])
def test_a_flipped_bit_or_a_missing_file_is_refused_by_name(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    with pytest.raises(BundleError, match=f"{name} was changed"):
        bundle.load(saved)
    (saved / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        bundle.load(saved)


def test_an_added_file_is_refused_by_name(saved: Path) -> None:
    (saved / "code" / "extra.py").write_text("")
    with pytest.raises(BundleError, match=r"code/extra.py was added"):
        bundle.load(saved)


def test_one_that_is_replaced_while_it_is_loaded_is_loaded_whole_or_not_at_all(
    saved: Path, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code / "features.py").write_text(FEATURES.replace("* 2", "* 1000"))
    other = saved.with_name("other")
    bundle.save(other, Doubler(), {"rows": 4}, ROWS)
    whole = {bundle_files.digest(saved): (3, 4.0), bundle_files.digest(other): (4, 2000.0)}
    seen, refused = set(), 0
    for loading in replaced_while_read(monkeypatch, saved, other, lambda: bundle.load(saved)):
        try:
            loaded = loading()
        except BundleError as error:
            assert re.search(r"(model.pkl|manifest.json|features.py|expected.json) was changed", str(error))
            refused += 1
            continue
        assert (loaded.manifest["rows"], loaded.score(ROWS)[0]) == whole[loaded.digest]
        assert bundle.verify(loaded) == 0
        seen.add(loaded.digest)
    assert seen == {*whole}
    assert refused


def test_one_whose_files_go_while_it_is_loaded_is_refused_by_name(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loading in replaced_while_read(monkeypatch, saved, tmp_path / "nowhere", lambda: bundle.load(saved)):
        with pytest.raises(BundleError, match=r"is just being replaced: .*(txt|json|pkl|py) has gone"):
            loading()


def test_columns_in_a_table_beside_the_code_are_those_that_were_checked(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code / "schema.py").write_text(
        "from pathlib import Path\n\nfrom copier_mlops import read_contract\n\n"
        'CONTRACT = read_contract(Path(__file__).with_name("contract.csv"))\n'
    )
    wide = Contract((Column("id", "string", "id"), Column("x", "number", minimum=0), Column("y", "number", "target")))
    (code / "contract.csv").write_text(to_csv(wide))
    saved = tmp_path / "models" / "bundle"
    bundle.save(saved, Doubler(), {"rows": 3}, ROWS[["id", "x"]])
    assert bundle.load(saved).contract == wide
    other = saved.with_name("other")
    shutil.copytree(saved, other)
    (other / "code" / "contract.csv").write_text(to_csv(wide).replace(",0,", ",1,"))
    assert (other / "code" / "contract.csv").read_text() != to_csv(wide)
    for loading in replaced_while_read(monkeypatch, saved, other, lambda: bundle.load(saved)):
        with contextlib.suppress(BundleError):
            assert loading().contract == wide


def test_a_bundle_of_release_1_finds_the_names_where_its_code_looks_for_them(code: Path, tmp_path: Path) -> None:
    (code / "schema.py").write_text(SCHEMA.replace("from copier_mlops import", "from ..api import"))
    folder = tmp_path / "bundle"
    bundle.save(folder, Doubler(), {"rows": 3}, ROWS)
    assert bundle.load(folder).contract.target == "y"


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"is no bundle: it has no checksums\.txt\. `make bundle` makes the one that services"
    ):
        bundle.load(tmp_path)


def test_a_folder_that_is_no_bundle_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large").write_text("x")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is read"))
    with pytest.raises(BundleError, match="is no bundle"):
        bundle.load(tmp_path)


def test_a_bundle_that_this_account_may_not_read_is_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(BundleError, match=r"cannot be read \(\[Errno 13\] Permission denied.*Let this account read"):
        bundle.load(saved)


def test_yesterdays_bundle_answers_as_yesterday_when_the_code_is_edited(saved: Path, code: Path) -> None:
    (code / "features.py").write_text(FEATURES.replace("* 2", "* 1000"))
    (code / "schema.py").write_text(SCHEMA.replace("minimum=0", "minimum=2"))
    today = saved.with_name("today")
    bundle.save(today, Doubler(), {}, ROWS[ROWS["x"] >= 2])
    both = [bundle.load(saved), bundle.load(today)]
    assert [loaded.score(ROWS)[0] for loaded in both] == [4.0, 2000.0]
    assert [loaded.contract.columns[2].minimum for loaded in both] == [0, 2]
    assert bundle.verify(both[0]) == 0


def test_a_class_of_model_py_travels_with_the_bundle(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Today's model.py may have another class of that name, or none."""
    text = "class Mine:\n    def predict(self, features):\n        return 3 * features['x'].to_numpy()\n"
    names: dict[str, Any] = {"__name__": model.__name__}
    exec(text, names)
    monkeypatch.setattr(model, "Mine", names["Mine"], raising=False)
    bundle.save(tmp_path / "bundle", names["Mine"](), {}, ROWS)
    monkeypatch.delattr(model, "Mine")
    assert bundle.load(tmp_path / "bundle").score(ROWS).tolist() == [6.0, 15.0, 4.5]


def test_a_model_that_answers_otherwise_once_it_is_loaded_is_not_kept(saved: Path) -> None:
    class Fickle(Doubler):
        loaded = 0

        def __setstate__(self, state: object) -> None:
            self.loaded = 1

        def __getstate__(self) -> dict[str, int]:
            return {"loaded": 1}

        def predict(self, features: pd.DataFrame) -> np.ndarray:
            return super().predict(features) + self.loaded

    before = bundle_files.digest(saved)
    with pytest.raises(BundleError, match="answers its example rows differently by up to 1"):
        bundle.save(saved, Fickle(), {}, ROWS)
    assert bundle_files.digest(saved) == before  # the one that was there stays
    assert [path.name for path in saved.parent.iterdir()] == ["bundle"]


def test_example_rows_that_break_the_contract_are_noticed(saved: Path) -> None:
    with pytest.raises(BundleError, match=r"refuses its own example rows: x: below 0"):
        bundle.save(saved, Doubler(), {}, ROWS.assign(x=-1.0))


def test_code_that_no_longer_runs_is_explained(saved: Path) -> None:
    file, sums = saved / "code" / "features.py", saved / bundle_files.CHECKSUMS
    old = bundle_files.digest(saved), bundle_files._sha256(file.read_bytes())
    file.write_text("import a_package_that_is_no_more\n")
    sums.write_text(sums.read_text().replace(old[1], bundle_files._sha256(file.read_bytes())))
    with pytest.raises(BundleError, match=r"does not load with the packages installed here.*a_package_that_is_no_more"):
        bundle.load(saved)
    assert bundle_files.digest(saved) != old[0]  # what names the bundle elsewhere has changed too


def test_expected_answers_are_those_of_the_rows(saved: Path) -> None:
    expected = json.loads((saved / "expected.json").read_text())
    assert expected["columns"] == list(ROWS)
    assert len(expected["rows"]) == len(expected["answers"]) == 3


def test_the_cost_of_an_answer_grows_with_its_work(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is simulated, so that a busy machine does not change the result."""
    loaded, clock = bundle.load(saved), [0.0]

    def taking(seconds: float, act: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            clock[0] += seconds
            return act(*given)

        return timed

    monkeypatch.setattr(bundle, "time", SimpleNamespace(process_time=lambda: clock[0], perf_counter=lambda: clock[0]))
    monkeypatch.setattr(bundle, "np", SimpleNamespace(**{**vars(np), "sort": taking(0.5, np.sort)}))
    costs = [
        bundle.cost(dataclasses.replace(loaded, build_features=taking(seconds, loaded.build_features)), ROWS)
        for seconds in (1.0, 4.0)
    ]
    assert costs == pytest.approx([2.0, 8.0])


def test_a_row_with_unseen_values_is_answered_and_says_so(code: Path, tmp_path: Path) -> None:
    schema = code / "schema.py"
    schema.write_text(
        SCHEMA.replace("minimum=0", 'minimum=0, unseen="pool"').replace(
            "nullable=True)", 'allowed=("k",), nullable=True, unseen="pool")'
        )
    )
    bundle.save(tmp_path / "pooled", Doubler(), {"rows": 3}, ROWS)
    loaded = bundle.load(tmp_path / "pooled")
    rows = ROWS.assign(kind=["k", None, "purple"], x=[1.0, -1.0, 0.75])
    found = loaded.answer(rows)
    assert found["score"].isna().tolist() == [False, True, False] and list(found) == ["score", "reason"]
    assert found["reason"].tolist() == ["", "x: below 0 (-1.0)", "kind: not seen in training (purple)"]
    good = rows.iloc[[0, 2]]
    assert loaded.answers(good)["unseen"].tolist() == [None, ["kind"]]
    assert "unseen" not in bundle.load(saved_without(code, tmp_path)).answers(good)


def saved_without(code: Path, tmp_path: Path) -> Path:
    (code / "schema.py").write_text(SCHEMA)
    bundle.save(tmp_path / "plain", Doubler(), {"rows": 3}, ROWS)
    return tmp_path / "plain"
