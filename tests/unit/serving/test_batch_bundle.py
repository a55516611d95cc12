"""A large table is answered with a registered version, in a form that is made once."""

import json
from pathlib import Path

import pytest

from copier_mlops import ProjectError
from copier_mlops.bundle import bundle_files, serving_bundle
from copier_mlops.bundle.bundle_files import BundleError
from copier_mlops.registry import mlflow_registry
from copier_mlops.serving.batch_bundle import answering
from copier_mlops.settings import Settings

from ..conftest import Poison, mlops


def test_the_champion_is_made_ready_once_and_another_version_by_its_number(
    registered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, digest = answering(Settings())
    assert serving_bundle.load(folder).version == 1
    made = folder.stat().st_mtime_ns
    assert mlops("batch-bundle") == 0
    assert capsys.readouterr().out.strip() == f"{folder} {digest}"
    assert folder.stat().st_mtime_ns == made
    assert mlops("batch-bundle", "2") == 0
    assert serving_bundle.load(Path(capsys.readouterr().out.split()[0])).version == 2
    assert mlops("batch-bundle", "second") == 1
    assert "VERSION is the number" in capsys.readouterr().err


def test_without_a_champion_there_is_nothing_to_answer_with(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_registry, "NAME", "another-model")
    with pytest.raises(ProjectError, match="there is no champion yet"):
        answering(Settings())


def test_a_replaced_bundle_answers_no_table(registered: Path, poison: Poison) -> None:
    mark = poison(1)
    with pytest.raises(BundleError, match="is not the recorded one"):
        answering(Settings())
    assert not mark.exists()


def test_a_bundle_that_was_made_of_another_is_made_again(registered: Path) -> None:
    """An earlier release made the bundle from the artifact store without a check."""
    folder, _ = answering(Settings())
    papers = folder / "lineage.json"
    papers.write_text(json.dumps({**json.loads(papers.read_text()), "trained_bundle": "0" * 64}))
    answering(Settings())
    assert json.loads(papers.read_text())["trained_bundle"] != "0" * 64


def test_a_kept_bundle_is_compared_with_the_registry(registered: Path) -> None:
    """Its own lineage.json and checksums are no evidence: a poisoned bundle brings valid ones along."""
    folder, digest = answering(Settings())
    code, mark = folder / "code" / "features.py", Path("executed")
    code.write_text(f"{code.read_text()}\nopen({str(mark.absolute())!r}, 'w').close()\n")
    bundle_files.write_checksums(folder)
    assert bundle_files.digest(folder) != digest
    again = answering(Settings())
    serving_bundle.load_made_here(*again)
    assert again[1] == bundle_files.digest(folder) and not mark.exists()


def test_without_permission_to_write_the_bundle_is_made_in_each_run(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*given: object) -> None:
        raise mlflow_registry.RegistryError("denied")

    monkeypatch.setattr(mlflow_registry.Registry, "record_export", denied)
    folder, _ = answering(Settings())
    made = folder.stat().st_ino
    assert answering(Settings())[0] == folder and folder.stat().st_ino != made
