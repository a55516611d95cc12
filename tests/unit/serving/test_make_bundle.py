"""A registered version becomes the folder that services answer from."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from sample_project.schema import CONTRACT

from copier_mlops import ProjectError
from copier_mlops.bundle import bundle, bundle_files, onnx_export, serving_bundle, signing
from copier_mlops.bundle.bundle_files import BundleError
from copier_mlops.bundle.isolated import Isolated
from copier_mlops.registry.mlflow_registry import Registry
from copier_mlops.serving import make_bundle as stage
from copier_mlops.serving.make_bundle import choose, export, rows_to_agree_on
from copier_mlops.settings import Settings

from ..conftest import CLOSE, Poison, mlops, replaced_while_read


def of(number: int) -> bundle.Bundle:
    registry = Registry(Settings())
    return bundle.load(registry.bundle(registry.version(number)))


def test_the_champion_is_exported_and_answers_alike(registered: Path, rows: pd.DataFrame) -> None:
    private, public = signing.new_pair()
    done = export(Settings(signing_key=private), None, Path("dist/bundle"))
    loaded = serving_bundle.load(Path("dist/bundle"), public)
    assert (done.version, done.signed, done.digest) == (1, True, loaded.digest)
    assert loaded.version == 1
    questions = rows.drop(columns=CONTRACT.target)
    assert loaded.score(questions) == pytest.approx(of(1).score(questions), **CLOSE)
    papers = json.loads(Path("dist/bundle/lineage.json").read_text())
    assert papers["run"] == Registry(Settings()).version(1).run_id
    assert Path("dist/bundle/card.md").read_text() == Path("reports/model_card.md").read_text() or papers["metrics"]
    assert not list(Path("dist").glob(".*"))  # nothing half-made is left


def test_another_version_by_its_number(registered: Path) -> None:
    assert export(Settings(), 2, Path("elsewhere")).version == 2
    assert serving_bundle.load(Path("elsewhere")).version == 2


def test_what_is_exported_twice_is_the_same(registered: Path) -> None:
    first, second = (export(Settings(), 1, Path("dist") / name) for name in ("a", "b"))
    assert first.digest == second.digest or first.runtime != "onnx"  # skops writes down the time
    assert serving_bundle.load(Path("dist/a")).expected == serving_bundle.load(Path("dist/b")).expected


@pytest.mark.parametrize("name", ["card.md", "code/features.py", "expected.json", "lineage.json", "reference.json"])
def test_a_flipped_bit_is_refused_by_name(registered: Path, name: str) -> None:
    folder = Path("dist/bundle")
    export(Settings(), None, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} was changed"):
        serving_bundle.load(folder)


def test_what_nobody_signed_is_not_loaded_in_the_place_of_what_was(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version takes the place of the signed one while it is loaded, at whichever moment and for however long."""
    private, public = signing.new_pair()
    here, other = Path("dist/bundle").absolute(), Path("dist/other").absolute()
    right = export(Settings(signing_key=private), 1, here)
    export(Settings(signing_key=signing.new_pair()[0]), 2, other)
    papers = {name: (here / name).read_text() for name in bundle_files.PAPERS}
    loads = 0
    for loading in replaced_while_read(monkeypatch, here, other, lambda: serving_bundle.load(here, public)):
        try:
            loaded = loading()
        except ProjectError:
            continue
        assert (loaded.version, loaded.digest, loaded.papers) == (1, right.digest, papers)
        bundle.verify(loaded)
        loads += 1
    assert loads  # the code, for one, is the same in both


def test_a_wrong_conversion_is_not_used(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = of(1)

    class Wrong:
        content = b""

        def predict(self, features: pd.DataFrame) -> np.ndarray:
            return np.zeros(len(features))

        def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
            width = max(2, len(CONTRACT.classes))
            return np.full((len(features), width), 1 / width)

        classes_ = np.arange(max(2, len(CONTRACT.classes)))

    monkeypatch.setattr(onnx_export, "to_onnx", lambda model, features: Wrong())
    name, content, why = choose(loaded, rows_to_agree_on(loaded))
    assert name != serving_bundle.ONNX
    assert "differs from the estimator by" in why
    assert content


class Constant:
    """An estimator of one's own."""

    def __init__(self, value: float) -> None:
        self.value = value

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        return np.full(len(features), self.value)


def test_an_estimator_of_ones_own_stays_a_pickle(registered: Path) -> None:
    loaded = dataclasses.replace(of(1), model=Constant(2.5))
    name, _, why = choose(loaded, rows_to_agree_on(loaded))
    assert name == bundle.PICKLE
    assert "classes of its own" in why


def test_a_file_of_skops_makes_nothing_run() -> None:
    import skops.io

    with pytest.raises(BundleError, match="Constant"):
        serving_bundle.from_skops(skops.io.dumps(Constant(1.0)))


def test_a_version_of_before_has_no_reference_and_is_exported(registered: Path) -> None:
    loaded = dataclasses.replace(of(1), reference={})
    rows = rows_to_agree_on(loaded)
    assert len(rows) > len(loaded.expected["rows"])  # real ones beside them


def test_without_data_the_bundles_own_rows_decide(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*given: Any) -> Any:
        raise ProjectError("no data here")

    monkeypatch.setattr(stage.split, "test", gone)
    assert len(rows_to_agree_on(of(1))) >= 8


def test_before_the_first_model_it_says_what_to_do(project: Path) -> None:
    with pytest.raises(ProjectError, match="no champion yet"):
        export(Settings(), None, Path("dist/bundle"))


def test_the_command_says_what_it_made(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mlops("signing-keys") == 0
    public = capsys.readouterr().out.strip().rpartition("VERIFY_KEY=")[2]
    assert signing.public_of(Settings().signing_key.get_secret_value()) == public == Settings().verify_key
    assert mlops("signing-keys") == 1
    assert "there already" in capsys.readouterr().err
    assert mlops("bundle", "--version", "2", "--output", "there") == 0
    said = capsys.readouterr().out
    assert "version 2 as " in said
    assert ", signed" in said
    assert serving_bundle.load(Path("there"), public).version == 2


def test_the_challenger_beside_the_champion(registered: Path) -> None:
    assert mlops("shadow-bundle") == 0
    assert serving_bundle.load(Path("dist/shadow")).version == 2


def test_a_replaced_bundle_is_not_signed(registered: Path, poison: Poison) -> None:
    mark = poison(1)
    with pytest.raises(BundleError, match="is not the recorded one"):
        export(Settings(signing_key=signing.new_pair()[0]), None, Path("dist/bundle"))
    assert not mark.exists()
    assert not Path("dist/bundle").exists()


def test_a_replaced_model_card_is_not_signed(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = Registry.fetch

    def replaced(registry: Registry, run_id: str, artifact: str, target: Path) -> Path:
        file = fetch(registry, run_id, artifact, target)
        if file.is_file():
            file.write_text("approved by the auditors")
        return file

    monkeypatch.setattr(Registry, "fetch", replaced)
    with pytest.raises(ProjectError, match=r"model card of version 1 .* is not the recorded one"):
        export(Settings(), None, Path("dist/bundle"))
    registry = Registry(Settings())
    registry.client.delete_tag(registry.version(1).run_id, "lineage_files")  # a version of an earlier release
    export(Settings(), None, Path("dist/bundle"))


def test_a_pickle_that_was_made_here_is_loaded_in_another_process(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("dist/bundle")
    export(Settings(), None, folder)
    fast = serving_bundle.load_made_here(folder, bundle_files.digest(folder))
    with pytest.raises(bundle_files.BundleError, match="is not the recorded one"):
        serving_bundle.load_made_here(folder, "0" * 64)
    monkeypatch.setattr(stage, "choose", as_pickle)
    assert export(Settings(), None, folder).runtime == "pickle"
    loaded = serving_bundle.load_made_here(folder, bundle_files.digest(folder))
    with pytest.raises(bundle_files.BundleError, match="is not the recorded one"):
        serving_bundle.load_made_here(folder, "0" * 64)
    assert isinstance(loaded, Isolated) and not isinstance(fast, Isolated)
    assert bundle.verify(loaded) == 0


def as_pickle(loaded: bundle.Bundle, rows: pd.DataFrame) -> tuple[str, bytes, str]:
    return bundle.PICKLE, cloudpickle.dumps(loaded.model), "a test asks for it"
