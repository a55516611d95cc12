"""One run at a time, nothing that goes on behind our back, and DVC's words where it fails. A script plays DVC here."""

import _thread
import contextlib
import fcntl
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from copier_mlops import InProgressError, ProjectError, UnreachableError
from copier_mlops.settings import Paths, Settings
from copier_mlops.versioning import dvc
from copier_mlops.versioning.dvc import DvcError

Play = Callable[[str], None]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Put a shell script in DVC's place, which is called as `python -m dvc repro`."""
    monkeypatch.chdir(tmp_path)

    def plays(script: str) -> None:
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))

    return plays


def is_free(lock: str) -> bool:
    """Whether every process that inherited the lock has ended; the system may need a moment to bury a killed one."""
    with (dvc.CACHE / lock).open() as file:
        for _ in range(200):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            time.sleep(0.05)
    return False


SLOW = "echo \"Running stage 'slow':\"\n(trap '' HUP; sleep 60) &\nwait"


def test_a_second_run_in_the_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with dvc.only_run(), pytest.raises(InProgressError, match=r"another run is going on.*`kill \d+`"), dvc.only_run():
        pass
    with dvc.only_run():  # it is free again
        pass


def test_a_stage_waits_for_one_that_outlived_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    order: list[str] = []
    waits = threading.Event()

    def say(text: str, flush: bool) -> None:
        order.append(text.split(" (")[0])
        waits.set()

    def second() -> None:
        with dvc.only_stage():
            order.append("second")

    monkeypatch.setattr(dvc, "print", say, raising=False)
    thread = threading.Thread(target=second)
    with dvc.only_stage():
        thread.start()
        assert waits.wait(30)
        order.append("first")
    thread.join()
    assert order == ["waiting for a stage of an interrupted run", "first", "second"]


def test_stages_are_timed_and_dvcs_own_chatter_is_left_out(play: Play) -> None:
    play(
        "test \"$*\" = '-m dvc repro --force' || exit 9\n"
        "echo \"Stage 'ingest' didn't change, skipping\"\n"
        "echo \"Running stage 'validate':\"\necho '> validate'\necho 'a line of the stage'\n"
        "echo \"Running stage 'train':\"\necho 'Updating lock file'\necho\n"
    )
    said: list[str] = []
    seconds = dvc.repro(Settings(), ("--force",), say=said.append)
    assert said == ["validate ...", "  a line of the stage", "train ..."]
    assert list(seconds) == ["validate", "train"]
    assert min(seconds.values()) >= 0


def test_the_stage_that_dvc_always_runs_is_silent_and_knows_that_it_has_nothing_to_do(play: Play) -> None:
    play('echo "Running stage \'resolve\':"\necho "RUN_RESOLVED=$RUN_RESOLVED"\n')
    said: list[str] = []
    assert dvc.repro(Settings(), say=said.append) == {}
    assert said == ["  RUN_RESOLVED=1"]
    assert Settings().run_resolved is False


def test_keys_that_dvc_needs_are_added_to_params_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DVC cannot record a stage whose parameter is not in the file."""
    monkeypatch.chdir(tmp_path)
    file = Path("params.yaml")
    file.write_text("seed: 7 # of all\nsearch: {trials: 3}\ngate:\n  metric: auc # decides\n")
    Path("dvc.yaml").write_text(
        "stages:\n  train:\n    cmd: x\n    params: [seed, search.rows, split, gate.metric, mine, {run.yaml: [contract]}]\n"
    )
    effective = {"seed": 7, "search": {"trials": 3, "rows": 100}, "split": {"folds": 2}, "gate": {"metric": "auc"}}
    assert dvc.complete_params(effective)
    text = file.read_text()
    assert yaml.safe_load(text) == effective
    assert "seed: 7 # of all" in text and "metric: auc # decides" in text
    assert "params.yaml has search.rows, split now" in capsys.readouterr().out
    assert not dvc.complete_params(effective)
    assert file.read_text() == text


def test_a_run_ends_where_the_model_differs_from_the_lock(play: Play) -> None:
    play("exit 0")
    Paths.BUNDLE.mkdir(parents=True)
    Paths.LOCK.write_text(
        "stages:\n  train:\n    outs:\n    - path: models/bundle\n      hash: md5\n      md5: 0123.dir\n"
    )
    with pytest.raises(DvcError, match=r"dvc.lock records 0123.dir: its files were changed"):
        dvc.repro(Settings(), say=lambda line: None)


def test_the_failing_stage_is_named(play: Play) -> None:
    play("echo \"Running stage 'validate':\"; echo 'error: too many bad rows'; exit 255")
    said: list[str] = []
    with pytest.raises(DvcError, match="stage validate failed"):
        dvc.repro(Settings(), say=said.append)
    assert "  error: too many bad rows" in said


def test_the_reason_of_dvc_is_printed(play: Play) -> None:
    """The error leaves out only DVC's sentence that a command exited, since the command itself prints the cause."""
    play(
        "echo \"Running stage 'ingest':\"\necho \"ERROR: failed to reproduce 'ingest': output 'data' is a symlink\"\n"
        "echo \"ERROR: failed to reproduce 'ingest': failed to run: x ingest, exited with 1\"\nexit 1\n"
    )
    said: list[str] = []
    with pytest.raises(DvcError, match="stage ingest failed"):
        dvc.repro(Settings(), say=said.append)
    assert said == ["ingest ...", "  ERROR: failed to reproduce 'ingest': output 'data' is a symlink"]


def test_the_time_limit_ends_the_whole_process_group(play: Play) -> None:
    play(SLOW)
    with pytest.raises(DvcError, match=r"stopped after 0.005 minutes. Finished stages are kept"):
        dvc.repro(Settings(timeout_minutes=0.005), say=lambda line: None)
    assert is_free("repro.lock")


def test_a_cancelled_run_leaves_nothing_running(play: Play) -> None:
    play(SLOW)

    def cancel(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dvc.repro(Settings(), say=cancel)
    assert is_free("repro.lock")


def test_what_does_not_listen_is_killed(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc, "SECONDS_TO_STOP", 0.3)
    play("trap '' TERM\n" + SLOW + "; wait; wait")

    def cancel(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dvc.repro(Settings(), say=cancel)
    assert is_free("repro.lock")


def test_stages_that_were_begun_ahead_are_waited_for(play: Play) -> None:
    play("echo called >> calls; sleep 0.5; echo \"Running stage 'train':\"")
    said: list[str] = []
    with dvc.ahead(Settings()):
        assert list(dvc.repro(Settings(), say=said.append)) == ["train"]
        assert Path("calls").read_text() == "called\n"
        dvc.repro(Settings(), say=said.append)  # what changed meanwhile is for one of its own
    assert said == ["train ..."] * 2
    assert Path("calls").read_text() == "called\n" * 2


def test_lines_from_before_the_flow_started_reach_its_log(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play("echo \"Running stage 'ingest':\"; while ! test -e go; do sleep 0.05; done; echo \"Running stage 'train':\"")
    said: list[str] = []
    early: list[str] = []

    def note(line: str) -> None:
        early.append(line)
        Path("go").touch()

    with dvc.ahead(Settings()):
        while "ingest ..." not in capsys.readouterr().out:
            time.sleep(0.01)
        dvc.repro(Settings(), say=said.append, early=note)
    assert (early, said) == (["ingest ..."], ["train ..."])


def test_a_run_elsewhere_does_not_take_what_was_begun_here(play: Play, tmp_path: Path) -> None:
    play(f"pwd >> {tmp_path}/calls; sleep 0.5")
    with dvc.ahead(Settings()):
        while not Path("calls").exists():
            time.sleep(0.01)
        (tmp_path / "elsewhere").mkdir()
        dvc.repro(Settings(), folder=Path("elsewhere"))
        dvc.repro(Settings())
    assert [Path(line).name for line in Path("calls").read_text().split()] == [tmp_path.name, "elsewhere"]


def test_stages_that_nobody_waited_for_are_stopped(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(SLOW)
    with dvc.ahead(Settings()):
        while "slow ..." not in capsys.readouterr().out:
            time.sleep(0.01)
        assert not is_free_now("repro.lock")
    assert is_free("repro.lock")
    assert dvc._begun == []


def is_free_now(lock: str) -> bool:
    with (dvc.CACHE / lock).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_what_went_wrong_ahead_is_told_to_whoever_asks(play: Play) -> None:
    play("echo \"Running stage 'validate':\"; exit 255")
    with dvc.ahead(Settings()), pytest.raises(DvcError, match="stage validate failed"):
        dvc.repro(Settings(), say=lambda line: None)
    with dvc.ahead(Settings()):
        pass  # nobody asked


def test_whoever_stops_waiting_stops_the_stages(play: Play) -> None:
    play(SLOW)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        threading.Timer(1, _thread.interrupt_main).start()
        with dvc.ahead(Settings()), pytest.raises(KeyboardInterrupt):
            dvc.repro(Settings(), say=lambda line: None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert is_free("repro.lock")


@pytest.mark.parametrize(("act", "comfort"), [(dvc.push, "nothing is lost"), (dvc.pull, "`make pipeline` makes")])
def test_a_store_that_does_not_answer_may_answer_later(
    play: Play, act: Callable[[Settings], None], comfort: str
) -> None:
    play("echo 'ERROR: no route to the store' >&2; seq 20 >&2; exit 1")
    Path(".dvc").mkdir()
    with pytest.raises(UnreachableError, match="no route to the store") as error:
        act(Settings(data_remote="s3://bucket/path"))
    assert "store s3://bucket/path" in str(error.value)
    assert "\n  1\n  2\n" in str(error.value)  # all of the cause
    assert comfort in str(error.value)


def test_a_missing_plug_in_is_named(play: Play) -> None:
    play("echo 'ERROR: s3 is supported, but requires dvc-s3' >&2; exit 1")
    Path(".dvc").mkdir()
    with pytest.raises(ProjectError, match="uv add dvc-s3"):
        dvc.push(Settings())


def test_the_environment_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("['remote \"storage\"']\n    url = ../.data-store\n    verify = true\n")
    local = Path(".dvc/config.local")
    assert dvc.configure_remote(Settings()) == "../.data-store"
    assert not local.exists()
    local.write_text("[core]\n    analytics = true\n")  # a person's own
    assert dvc.configure_remote(Settings(data_remote="store", data_remote_endpoint="http://127.0.0.1:9000")) == "store"
    assert f"url = {tmp_path / 'store'}" in local.read_text()
    assert "endpointurl = http://127.0.0.1:9000" in local.read_text()
    dvc.configure_remote(Settings(data_remote="s3://bucket/50%"))
    assert "url = s3://bucket/50%" in local.read_text()
    assert "endpointurl" not in local.read_text()
    assert dvc.configure_remote(Settings()) == "../.data-store"
    assert "storage" not in local.read_text()
    assert "analytics = true" in local.read_text()


def test_a_store_is_verified_in_a_project_that_lacks_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("['remote \"storage\"']\n    url = ../.data-store\n")
    assert dvc.configure_remote(Settings()) == "../.data-store"
    assert "verify = true" in Path(".dvc/config.local").read_text()


def _poison(store: Path) -> None:
    """Replace the object of the model in a store by other bytes of the same size."""
    content = (Paths.BUNDLE / "model.pkl").read_bytes()
    [one] = [path for path in store.rglob("*") if path.is_file() and path.read_bytes() == content]
    one.chmod(0o644)
    one.write_bytes(b"evil".ljust(len(content)))


def test_a_model_that_the_store_replaced_is_not_fetched(project: Path) -> None:
    dvc.push(Settings())
    _poison(project / ".data-store")
    for place in (project / ".dvc/cache", project / ".dvc/tmp", project / "models"):
        shutil.rmtree(place)
    with pytest.raises(UnreachableError, match="could not be pulled"):
        dvc.pull(Settings())
    assert not (Paths.BUNDLE / "model.pkl").exists()


def test_a_model_that_differs_from_the_lock_is_not_used(project: Path) -> None:
    dvc.check_output(Paths.BUNDLE)
    model = Paths.BUNDLE / "model.pkl"
    model.unlink()
    model.write_bytes(b"evil")
    with pytest.raises(DvcError, match=r"models/bundle has the hash .*, but dvc.lock records"):
        dvc.check_output(Paths.BUNDLE)
    shutil.rmtree("models")
    dvc.check_output(Paths.BUNDLE)
