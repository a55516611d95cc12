"""A version is built again from what was kept with it, and held against what was recorded. Scripts play uv and DVC."""

import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from copier_mlops import ProjectError
from copier_mlops.data import tables
from copier_mlops.lifecycle import reproduce
from copier_mlops.pipeline import evaluate, features, train, validate
from copier_mlops.registry.mlflow_registry import LINEAGE_FILES, Registry
from copier_mlops.settings import Paths, Settings


@pytest.fixture
def tools(registered: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A uv that installs a Python, which knows where DVC would find the raw data of that day."""
    uv = registered / ".tools" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    checkout = f'#!/bin/sh\\ncase "$*" in *checkout*) mkdir -p data; cp -r {registered / Paths.RAW} data/raw;; esac\\n'
    uv.write_text(
        f"#!/bin/sh\ntest -f dvc.lock || exit 3\nmkdir -p .venv/bin\nprintf '{checkout}' > .venv/bin/python\n"
        "chmod +x .venv/bin/python\n"
    )
    uv.chmod(0o755)
    shutil.rmtree(registered / "data" / "validated")  # nothing but the raw data is taken from here
    return uv


def by_the_stages(settings: Settings, words: tuple[str, ...], folder: Path, environment: dict[str, str]) -> Any:
    """What `dvc repro` would run, in this process."""
    assert words[-2:] == ("--downstream", "validate")
    assert environment["PATH"].startswith(str(folder / ".venv" / "bin"))
    assert "PYTHONPATH" not in environment  # which names the source of today
    before = Path.cwd()
    os.chdir(folder)
    try:
        validate.validate()
        features.features()
        train.train()
        evaluate.evaluate()
    finally:
        os.chdir(before)


def test_a_version_is_built_again_to_the_same_figures(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce.dvc, "repro", by_the_stages)
    monkeypatch.setenv("PYTHONPATH", str(Path("src").absolute()))
    agrees, lines = reproduce.reproduce(Settings(), 1)
    assert agrees
    assert {line["metric"] for line in lines} == set(tables.read_json(Paths.METRICS))
    assert {line["difference"] for line in lines} == {0.0}
    assert list(Path(".cache/reproduce").iterdir()) == []


def test_what_differs_is_named(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def otherwise(settings: Settings, words: tuple[str, ...], folder: Path, environment: dict[str, str]) -> None:
        metrics = tables.read_json(folder / Paths.METRICS)
        tables.write_json({name: value + 0.1 for name, value in metrics.items()}, folder / Paths.METRICS)
        lock = yaml.safe_load((folder / Paths.LOCK).read_text())
        lock["stages"]["train"]["outs"][0]["md5"] = "another"
        (folder / Paths.LOCK).write_text(yaml.safe_dump(lock))

    monkeypatch.setattr(reproduce.dvc, "repro", otherwise)
    agrees, lines = reproduce.reproduce(Settings(), 1)
    assert not agrees
    assert {round(line["difference"], 9) for line in lines} == {0.1}
    assert reproduce.differing_outputs(Settings(), 1) == [str(Paths.BUNDLE)]


@pytest.mark.parametrize(
    ("script", "says"), [(None, "uv is not found"), ("echo no >&2; exit 1", "cannot be installed: no")]
)
def test_without_its_environment_nothing_is_built(
    tools: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, says: str
) -> None:
    if script is None:
        tools.unlink()
        monkeypatch.setenv("PATH", "/usr/sbin")
    else:
        tools.write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(ProjectError, match=says):
        reproduce.reproduce(Settings(), 1)


def test_links_that_lead_elsewhere_are_not_followed(tmp_path: Path) -> None:
    """Somebody's link to a disk of his own is in the snapshot; it is no part of the version."""
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "mine.txt").write_text("mine")
    (tmp_path / "from" / "away").symlink_to("/somewhere")
    (tmp_path / "from" / "up").symlink_to("../../elsewhere")
    (tmp_path / "from" / "near").symlink_to("mine.txt")
    with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "from", ".")
    with tarfile.open(tmp_path / "source.tar.gz") as archive:
        reproduce.unpack(archive, tmp_path / "to")
    assert {path.name for path in (tmp_path / "to").iterdir()} == {"mine.txt", "near"}
    assert (tmp_path / "to" / "near").read_text() == "mine"


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "in/../../out.txt"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with (
        tarfile.open(tmp_path / "source.tar.gz") as archive,
        pytest.raises(ProjectError, match=r"out\.txt leads out of its folder"),
    ):
        reproduce.unpack(archive, tmp_path / "to" / "project")
    assert not list(tmp_path.rglob("out.txt"))


def test_files_and_programs_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "from/deep").mkdir(parents=True)
    program = tmp_path / "from/deep/run.sh"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o4755)
    with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as archive:
        archive.add(program, "deep/run.sh")  # without an entry for its folder
    with tarfile.open(tmp_path / "source.tar.gz") as archive:
        reproduce.unpack(archive, tmp_path / "to")
    assert (tmp_path / "to/deep/run.sh").read_text() == "#!/bin/sh\n"
    assert (tmp_path / "to/deep/run.sh").stat().st_mode & 0o7777 == 0o755


def replace_lineage(name: str) -> Path:
    """Append to a file of version 1's lineage in a copy of it, which the registry then returns."""
    registry = Registry(Settings())
    folder = registry.fetch(registry.version(1).run_id, "lineage", Path("copy"))
    file = next(folder.glob(name))
    file.write_bytes(file.read_bytes() + b"\n")
    return folder


@pytest.mark.parametrize("name", ["source-*.tar.gz", "dvc.lock", "run.yaml"])
def test_replaced_files_of_a_version_are_not_executed(tools: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = replace_lineage(name)
    monkeypatch.setattr(Registry, "fetch", lambda registry, run_id, artifact, target: shutil.copytree(folder, target))
    monkeypatch.setattr(reproduce, "_install", lambda settings, project: pytest.fail("it was installed"))
    with pytest.raises(ProjectError, match="holds other files than were recorded"):
        reproduce.reproduce(Settings(), 1)


def test_the_source_of_an_earlier_release_comes_from_git(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(Settings())
    version = registry.version(1)
    registry.client.delete_tag(version.run_id, LINEAGE_FILES)
    kept = registry.fetch(version.run_id, "lineage", Path("kept"))
    files = reproduce._verified(registry, version, kept)
    assert [path.parent.name for path in files.values()] == ["git"]
    with tarfile.open(next(iter(files.values()))) as archive:
        assert {"dvc.lock", "run.yaml", "params.yaml"} <= set(archive.getnames())
    registry.client.set_tag(version.run_id, "snapshot", "0" * 40)
    shutil.rmtree(kept / "git")
    with pytest.raises(ProjectError, match="git fetch origin"):
        reproduce._verified(registry, version, kept)


def test_what_is_rebuilt_gets_no_secrets(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spy(settings: Settings, words: tuple[str, ...], folder: Path, environment: dict[str, str]) -> None:
        assert "s3cret" not in str(environment)
        assert environment["PATH"].startswith(str(folder / ".venv" / "bin"))

    monkeypatch.setenv("SIGNING_KEY", "s3cret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setattr(reproduce.dvc, "repro", spy)
    assert reproduce.reproduce(Settings(), 1)[0]
