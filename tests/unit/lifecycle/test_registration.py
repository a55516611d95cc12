"""A run is recorded once, judged, and registered if it passes; a champion comes and goes, and a kill is made up for."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_project import schema

from copier_mlops import ProjectError
from copier_mlops.bundle import bundle_files
from copier_mlops.bundle.isolated import Isolated
from copier_mlops.data import tables
from copier_mlops.lifecycle import registration
from copier_mlops.lifecycle.history import history
from copier_mlops.params import load_run
from copier_mlops.pipeline import run_config, split
from copier_mlops.registry.database import CHALLENGER, CHAMPION, MOVE, POINTER, Version
from copier_mlops.registry.mlflow_registry import Registry, RegistryError
from copier_mlops.settings import Paths, Settings

from ..conftest import Poison, change

CONTRACT = schema.CONTRACT


@pytest.fixture
def registry(registered: Path) -> Registry:
    return Registry(Settings())


def champion(registry: Registry) -> tuple[int | None, int | None, int]:
    """Who is champion and who is challenger, and who champion.json says is champion."""
    holders = [registry.holder(alias) for alias in (CHAMPION, CHALLENGER)]
    numbers = [one.number if one else None for one in holders]
    return (*numbers, json.loads(POINTER.read_text())["version"])


def again(**values: Any) -> Any:
    """Record a run of the same outputs under other settings, which is another lineage."""
    change(Path(), **values)
    run_config.resolve_run(Settings())
    return registration.record(Settings())


# ---------------------------------------------------------------------------------------------------------- Record


def test_the_first_that_passes_is_champion_and_the_next_its_challenger(registry: Registry) -> None:
    assert champion(registry) == (1, 2, 1)
    pointer = json.loads(POINTER.read_text())
    assert pointer["by"] == "tester"
    assert pointer["metrics"].keys() >= tables.read_json(Paths.METRICS).keys()
    assert pointer["bundle"] == bundle_files.digest(registry.bundle(registry.version(1)))


def test_test_rows_of_one_class_alone_do_not_pass(registry: Registry) -> None:
    facts, none = tables.read_json(Paths.FACTS), {"value": None, "low": None, "high": None}
    facts |= {"metrics": {**facts["metrics"], facts["metric"]: none}, "over_baseline": none}
    verdict, _ = registration.judge(registry, load_run(), facts, "another")
    assert not verdict.passed
    assert any("over the baseline has no value on the test rows" in reason for reason in verdict.reasons)


def test_a_run_that_does_not_pass_is_kept_and_not_registered(registry: Registry) -> None:
    outcome = registration.record(Settings())
    assert (outcome.passed, outcome.version, outcome.status, outcome.champion) == (False, None, "rejected", 1)
    logged = registry.run(registry.find(outcome.lineage))
    assert logged.data.tags["verdict"] == "failed"
    missed = [check["name"] for check in json.loads(logged.data.tags["checks"])["checks"] if not check["passed"]]
    assert missed == ["gate.better_than_baseline"]
    assert len(registry.versions()) == 2


def test_a_bundle_that_was_not_trained_here_has_no_times(registry: Registry) -> None:
    """Such as one from DVC's cache: its run starts when it is recorded."""
    for content in ('{"bundle": "another"}', "half a f"):
        Paths.TIMES.write_text(content)
        outcome = again(seed=100 + len(content))
        run = registry.run(registry.find(outcome.lineage))
        assert abs(run.info.start_time - int(run.data.tags["recorded"])) < 1000
        assert registry.runs()[-1].info.run_id == run.info.run_id


def test_recording_again_changes_nothing(registry: Registry) -> None:
    before = history(Settings())
    first, second = registration.record(Settings()), registration.record(Settings())
    assert first == second
    assert history(Settings()) == before


def test_an_outcome_is_remembered_until_something_moves(registry: Registry) -> None:
    outcome = registration.record(Settings())
    assert run_config.recall(Settings()) == outcome
    registration.promote(Settings(), None, "")
    assert run_config.recall(Settings()) is None  # champion.json is another
    registration.record(Settings())
    assert run_config.recall(Settings()) is not None
    change_code()
    assert run_config.recall(Settings()) is None


def change_code() -> None:
    with (next(Path("src").iterdir()) / "cli.py").open("a") as file:
        file.write("# another lineage\n")


def test_a_killed_record_is_finished_by_the_next(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """First it dies while it logs, then between the log and the registry, then between the registry and the alias."""
    change(Path(), seed=9, gate={"better_than_baseline": -1e6})
    run_config.resolve_run(Settings())
    for step in ("_log_model", "register", "challenge"):
        with monkeypatch.context() as patch:
            patch.setattr(Registry, step, killed)
            with pytest.raises(KeyboardInterrupt):
                registration.record(Settings())
    outcome = registration.record(Settings())
    assert (outcome.version, outcome.status) == (3, CHALLENGER)
    assert [version.number for version in registry.versions()] == [1, 2, 3]
    assert len(registry.runs()) == 4


def killed(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_what_was_champion_once_does_not_come_back_by_itself(registry: Registry) -> None:
    assert again(gate={"better_than_baseline": -1e6}).version == 2  # as it was recorded before
    registration.promote(Settings(), 2, "")
    registration.rollback(Settings(), "")
    assert again().status == "archived"
    assert champion(registry) == (1, None, 1)


def test_promotion_may_be_automatic(registry: Registry) -> None:
    outcome = again(gate={"better_than_baseline": -1e6}, promotion={"automatic": True})
    assert (outcome.version, outcome.status) == (3, CHAMPION)
    assert champion(registry) == (3, None, 3)
    assert [version.status for version in registry.versions()] == ["archived", "archived", CHAMPION]


# ----------------------------------------------------------------------------------------------------- The report


def test_the_report_shows_the_run_and_follows_the_champion(registry: Registry) -> None:
    rejected = Paths.PAGE.read_text()
    assert "did not pass the gate" in rejected and "rejected by the gate" in rejected
    registration.promote(Settings(), 2, "it is better")
    second = Paths.PAGE.read_text()
    lineages = {version.number: version.lineage for version in registry.versions()}
    assert "champion since" in second and "it is better" in second and lineages[2] in second
    assert "champion (version 1)" in second and "passed the gate" in second
    registration.rollback(Settings(), "it is not")
    first = Paths.PAGE.read_text()
    assert "champion since" in first and lineages[1] in first and "champion (version" not in first
    again()  # records the rejected run once more
    assert "rejected by the gate" in Paths.PAGE.read_text()


def test_a_version_that_was_rolled_back_does_not_take_the_report(registry: Registry) -> None:
    change(Path(), gate={"better_than_baseline": -1e6})  # the lineage of version 2
    run_config.resolve_run(Settings())
    registration.promote(Settings(), 2, "")
    registration.rollback(Settings(), "")
    assert registration.record(Settings()).status == "archived"
    assert registry.version(1).lineage in Paths.PAGE.read_text()


def test_the_report_of_a_run_is_an_artifact_with_its_version(registry: Registry, tmp_path: Path) -> None:
    version = registry.version(2)
    page = registry.fetch(version.run_id, Paths.PAGE.name, tmp_path).read_text()
    assert "<td>2</td>" in page and version.lineage in page and "challenger on" in page


def test_a_report_that_cannot_be_written_stops_no_promotion(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(Path(registry.run(registry.version(2).run_id).info.artifact_uri.removeprefix("file://")) / "plots")
    assert registration.promote(Settings(), 2, "").number == 2
    assert champion(registry) == (2, None, 2)
    assert "warning: reports/report.html is not the report of run" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ Judging the run


def test_both_models_answer_the_same_rows(registry: Registry) -> None:
    run = run_config.load_run()
    old, new = registry.version(1), registry.version(2)
    assert registration.against(registry, new, run).gain.value == 0  # version 2 is what stands in models/bundle
    compared = registration.against(registry, old, run)
    gain, logged = compared.gain, registry.run(new.run_id).data
    assert json.loads(logged.tags["over_champion"])["value"] == pytest.approx(gain.value)
    theirs = registry.run(old.run_id).data.metrics
    assert compared.metrics == pytest.approx({name: theirs[name] for name in compared.metrics})
    assert (compared.version, compared.rows) == (1, len(split.test(run)))
    values = [registry.run(version.run_id).data.metrics[run.gate.metric] for version in (new, old)]
    assert gain.value == pytest.approx(values[0] - values[1] if facts()["larger_is_better"] else values[1] - values[0])


def facts() -> dict[str, Any]:
    return dict(tables.read_json(Paths.FACTS))


def test_a_champion_of_another_question_is_not_compared(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = registry.load(registry.version(1))
    other = dataclasses.replace(loaded, manifest={**loaded.manifest, "target": "something else"})
    monkeypatch.setattr(Registry, "load", lambda registry, version: other)
    assert registration.against(registry, registry.version(1), run_config.load_run()) is None
    assert "answers another question" in capsys.readouterr().out


def test_a_champion_whose_columns_are_gone_is_not_compared(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = registration.tables.read_between
    gone = next(column.name for column in CONTRACT.columns if column.name not in CONTRACT.keys)
    monkeypatch.setattr(registration.tables, "read_between", lambda *some: whole(*some).drop(columns=gone))
    assert registration.against(registry, registry.version(1), run_config.load_run()) is None
    assert f"needs {gone}, no longer there" in capsys.readouterr().out


def test_a_champion_that_takes_no_row_is_not_compared(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = registration.tables.read_between
    monkeypatch.setattr(registration.tables, "read_between", lambda *some: whole(*some).assign(**{CONTRACT.id: None}))
    assert registration.against(registry, registry.version(1), run_config.load_run()) is None
    assert "takes none of the test rows" in capsys.readouterr().out


def test_a_champion_that_no_longer_answers_as_it_did_gives_way(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert registration.verify(Settings()) == registry.version(1)
    load = Registry.load

    def with_other_packages(registry: Registry, version: Version) -> Isolated:
        loaded = load(registry, version)
        answers = np.array(loaded.expected["answers"]) + 0.1 * (version.number == 1)
        return dataclasses.replace(loaded, expected={**loaded.expected, "answers": answers})

    monkeypatch.setattr(Registry, "load", with_other_packages)
    with pytest.raises(bundle_files.StaleBundleError, match="answers its example rows differently"):
        registration.verify(Settings())
    outcome = again(gate={"better_than_baseline": -1e5})
    assert outcome.over_champion is None and "does not answer as it did" in capsys.readouterr().out
    assert champion(registry)[0] == outcome.version == 3
    assert "packages" in registry.moves()[-1].why
    assert registration.verify(Settings()) == registry.version(3)


def test_nobody_to_verify(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "holder", lambda self, alias: None)
    assert registration.verify(Settings()) is None


# ---------------------------------------------------------------------------------------------------------- Moves


def test_there_and_back(registry: Registry) -> None:
    with pytest.raises(ProjectError, match="there is no version 0; there are 1, 2"):
        registration.promote(Settings(), 0, "it is not the challenger")
    assert registration.promote(Settings(), None, "it is better").number == 2
    assert champion(registry) == (2, None, 2)
    assert json.loads(POINTER.read_text())["why"] == "it is better"
    assert [version.status for version in registry.versions()] == ["archived", CHAMPION]
    with pytest.raises(RegistryError, match="version 2 is the champion already"):
        registration.promote(Settings(), 2, "")
    with pytest.raises(ProjectError, match="there is no challenger to promote"):
        registration.promote(Settings(), None, "")

    Paths.POINTER.write_text(json.dumps({"version": 1}))
    with pytest.raises(ProjectError, match="version 2 is the champion by now, and version 1 was delivered"):
        registration.rollback(Settings(), "", delivered=True)
    assert registration.rollback(Settings(), "", delivered=True).number == 1
    assert champion(registry) == (1, None, 1)
    with pytest.raises(RegistryError, match="nothing to go back to"):
        registration.rollback(Settings(), "")
    assert champion(registry) == (1, None, 1)

    registration.promote(Settings(), 2, "once more")
    moves = registry.moves()
    assert [(move.action, move.before, move.after, move.who) for move in moves] == [
        ("promote", None, 1, "tester"),
        ("promote", 1, 2, "tester"),
        ("rollback", 2, 1, "tester"),
        ("promote", 1, 2, "tester"),
    ]
    assert [move.why for move in moves[1:3]] == ["it is better", "by hand"]
    assert registry.former() == 1


def test_a_killed_promotion_is_settled_by_the_next_command(registry: Registry) -> None:
    """The move is written first; the kill came before the alias."""
    move = {"action": "promote", "before": 1, "after": 2, "who": "tester", "when": "2024-01-01", "why": "killed"}
    registry.client.set_registered_model_tag("sample-project", f"{MOVE}00002", json.dumps(move))
    assert champion(registry) == (1, 2, 1)
    history(Settings())
    assert champion(registry) == (2, None, 2)
    assert [version.status for version in registry.versions()] == ["archived", CHAMPION]


def test_a_bundle_that_was_tampered_with_is_not_promoted(registry: Registry) -> None:
    with (registry.bundle(registry.version(2)) / "manifest.json").open("a") as file:
        file.write(" ")
    with pytest.raises(bundle_files.BundleError, match=r"manifest.json was changed"):
        registration.promote(Settings(), None, "")
    assert champion(registry) == (1, 2, 1)
    assert len(registry.moves()) == 1


# ---------------------------------------------------------------------------------------------------- Looking back


def test_history_has_every_run_and_every_move(registry: Registry) -> None:
    runs, moves = history(Settings())
    assert [(run["version"], run["status"], run["verdict"]) for run in runs] == [
        (1, CHAMPION, "passed"),
        (2, CHALLENGER, "passed"),
        (None, "rejected", "failed: gate.better_than_baseline"),
    ]
    metric = run_config.load_run().gate.metric
    assert runs[1][metric] == pytest.approx(tables.read_json(Paths.METRICS)[metric])
    assert [(move["action"], move["after"]) for move in moves] == [("promote", 1)]


# ---------------------------------------------------------------------------------- A changed artifact store


def test_a_replaced_bundle_is_never_loaded(registry: Registry, poison: Poison) -> None:
    """The checksums are rewritten to match, so that only the recorded digest shows the change."""
    marks = [poison(number) for number in (1, 2)]
    run = run_config.load_run()
    for act in (
        lambda: registration.verify(Settings()),
        lambda: registration.promote(Settings(), None, ""),
        lambda: registration.against(registry, registry.version(1), run),
    ):
        with pytest.raises(bundle_files.BundleError, match="is not the recorded one"):
            act()
    assert not any(mark.exists() for mark in marks)
    assert not list(Path(".cache").glob("bundles/*"))  # the next command does not find it there either
    assert champion(registry) == (1, 2, 1)


def test_a_replaced_bundle_does_not_come_back_by_rollback(registry: Registry, poison: Poison) -> None:
    registration.promote(Settings(), 2, "")
    mark = poison(1)
    with pytest.raises(bundle_files.BundleError, match="is not the recorded one"):
        registration.rollback(Settings(), "")
    assert not mark.exists()
    assert champion(registry) == (2, None, 2)


def test_a_replaced_bundle_in_the_cache_is_not_loaded(registry: Registry, poison: Poison) -> None:
    mark = poison(1)
    folder = Path(registry.run(registry.version(1).run_id).info.artifact_uri.removeprefix("file://"))
    shutil.copytree(folder / "bundle", Path(".cache/bundles") / f"1-{registry.version(1).run_id}")
    with pytest.raises(bundle_files.BundleError, match="is not the recorded one"):
        registration.verify(Settings())
    assert not mark.exists()


def test_a_changed_pointer_is_restored_from_git_where_the_tag_of_the_run_is_right(registry: Registry) -> None:
    history(Settings())
    subprocess.run(["git", "add", str(POINTER)], check=True)
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"], check=True)
    pointer = POINTER.read_text()
    POINTER.write_text(pointer.replace(json.loads(pointer)["bundle"], "0" * 64))
    with pytest.raises(bundle_files.BundleError) as told:
        registration.verify(Settings())
    assert f"{POINTER} in the work tree records {'0' * 64}. git's HEAD agrees with MLflow" in str(told.value)
    assert "set it back" not in str(told.value)
    subprocess.run(["git", "restore", "--source", "HEAD", str(POINTER)], check=True)
    assert registry.digest(registry.version(1)) == json.loads(pointer)["bundle"]


@pytest.mark.parametrize("committed", [False, True])
def test_the_digest_in_git_decides_where_the_tag_of_the_run_is_changed_too(
    registry: Registry, poison: Poison, committed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    history(Settings())
    pointer = POINTER.read_text()
    if committed:  # the work tree's file is then rewritten
        subprocess.run(["git", "add", str(POINTER)], check=True)
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"], check=True)
    mark, run_id = poison(1), registry.version(1).run_id
    folder = Path(registry.run(run_id).info.artifact_uri.removeprefix("file://")) / "bundle"
    digest = bundle_files.digest(folder)
    registry.client.set_tag(run_id, "bundle", digest)
    if committed:
        POINTER.write_text(pointer.replace(json.loads(pointer)["bundle"], digest))
    with pytest.raises(bundle_files.BundleError, match="records the digest"):
        registration.verify(Settings())
    history(Settings())  # reads no bundle, so it passes
    assert "records the digest" in capsys.readouterr().err
    assert committed or POINTER.read_text() == pointer
    registry.client.delete_tag(run_id, "bundle")
    with pytest.raises(bundle_files.BundleError, match=r"records the digest \(none\)"):
        registration.verify(Settings())
    POINTER.unlink()
    says = r"records the digest \(none\)" if committed else "has no tag `bundle`"
    with pytest.raises(bundle_files.BundleError, match=says):
        registry.load(registry.version(1))
    assert not mark.exists()
