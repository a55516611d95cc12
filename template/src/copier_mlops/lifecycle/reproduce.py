"""reproduce: rebuild a version from what was kept with it, in a folder of its own, and compare."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from copier_mlops import ProjectError
from copier_mlops._environment import for_model
from copier_mlops.data import tables
from copier_mlops.registry.database import Version
from copier_mlops.registry.mlflow_registry import LINEAGE_FILES, Registry, file_digests
from copier_mlops.settings import Paths, Settings, site_cache
from copier_mlops.versioning import dvc, snapshot

SAME, ELSEWHERE = 1e-9, 1e-6  # largest difference of a metric on the same machine and lock, and on others


def reproduce(settings: Settings, number: int) -> tuple[bool, list[dict[str, Any]]]:
    """Build a version again from its source archive, its environment lock and the data that its dvc.lock names.

    The stages after ingest run from scratch: the source may have moved on, the raw data of that day is kept.

    Returns:
        Whether all metrics agree, and a line for each: metric, recorded, rebuilt, difference.

    Raises:
        ProjectError: If a part of the lineage is missing or a stage fails.
    """
    registry = Registry(settings)
    version = registry.version(number)
    place = Path(".cache/reproduce").absolute() / f"{version.number}-{version.lineage}"
    shutil.rmtree(place, ignore_errors=True)
    kept = registry.fetch(version.run_id, "lineage", place / "kept")
    files = _verified(registry, version, kept)
    project = place / "project"
    project.mkdir()
    with tarfile.open(files.pop(f"source-{version.lineage}.tar.gz")) as archive:
        unpack(archive, project)
    for name in ("dvc.lock", "uv.lock", "run.yaml"):
        if name in files:
            shutil.copyfile(files[name], project / name)
    environment = _install(settings, project)
    _data(settings, project, environment)
    dvc.repro(
        settings,
        ("--force", "--no-run-cache", "--downstream", "validate"),
        folder=project,
        environment={**for_model(environment), "PATH": environment["PATH"]},  # these stages need no secret
    )
    recorded = tables.read_json(kept / "metrics.json")
    rebuilt = tables.read_json(project / Paths.METRICS)
    lines = [
        {
            "metric": name,
            "recorded": recorded.get(name),
            "rebuilt": rebuilt.get(name),
            "difference": abs(float(recorded.get(name, np.nan)) - float(rebuilt.get(name, np.nan))),
        }
        for name in dict.fromkeys([*recorded, *rebuilt])
    ]
    same_place = registry.run(version.run_id).data.tags.get("machine") == machine()
    limit = SAME if same_place else ELSEWHERE
    agrees = all(line["difference"] <= limit for line in lines)
    if agrees:
        shutil.rmtree(place)
    return agrees, lines


def _verified(registry: Registry, version: Version, kept: Path) -> dict[str, Path]:
    """Return the lineage's files after a check against the recorded digests, since the files are executed.

    Runs of earlier releases recorded no digests. For them the source comes from git's snapshot with its lock files.

    Raises:
        ProjectError: If a file was changed or added, or nothing records what it was.
    """
    archive = f"source-{version.lineage}.tar.gz"
    tags = registry.run(version.run_id).data.tags
    found = {path.name: path for path in kept.iterdir() if path.is_file()}
    if LINEAGE_FILES in tags:
        elsewhere = (Paths.CARD.name, Paths.FACTS.name)  # other artifacts of the run
        recorded = {name: digest for name, digest in json.loads(tags[LINEAGE_FILES]).items() if name not in elsewhere}
        digests = file_digests(found.values())
        wrong = sorted(name for name in {*recorded, *digests} if recorded.get(name) != digests.get(name))
        if wrong or archive not in found:
            raise ProjectError(
                f"version {version.number} is not rebuilt: the artifact store holds other files than were recorded for "
                f"run {version.run_id}, in lineage/{', lineage/'.join(wrong or [archive])}. Nothing of them was executed. "
                "Find out who changed the artifact store, and restore the files from a backup."
            )
        return found
    source = kept / "git" / archive
    source.parent.mkdir()
    try:
        snapshot.archive(tags.get("snapshot", ""), source)
    except snapshot.GitError as error:
        raise ProjectError(
            f"version {version.number} is not rebuilt: its run records no digests of its files, and the commit with its "
            f"source is not in this repository ({error}). Fetch it, then try again: "
            "git fetch origin 'refs/versions/*:refs/versions/*'"
        ) from error
    return {archive: source}


def machine() -> str:
    """What a result may depend on beside the lock: the processor's kind and the system."""
    return f"{platform.system()} {platform.machine()} {platform.processor()} Python {platform.python_version()}".strip()


def differing_outputs(settings: Settings, number: int) -> list[str]:
    """Which outputs of a rebuilt version that did not agree have other content than was recorded."""
    registry = Registry(settings)
    version = registry.version(number)
    place = Path(".cache/reproduce") / f"{version.number}-{version.lineage}"
    locks = [yaml.safe_load((place / side / "dvc.lock").read_text()) for side in ("kept/lineage", "project")]
    before, after = ({out["path"]: out.get("md5") for out in _outputs(lock)} for lock in locks)
    return [path for path in before if before[path] != after.get(path)]


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Write the files, folders and links of an archive below a folder. Links that lead out of it are left out.

    As `tarfile.data_filter`, which Python 3.11.0 to 3.11.3 do not have; Debian 12 has 3.11.2.

    Raises:
        ProjectError: If the name of a member leads out of the folder.
    """
    root = folder.resolve()
    for member in archive:
        place = root / member.name
        if not place.resolve().is_relative_to(root):
            raise ProjectError(f"the source archive is not unpacked: the name {member.name} leads out of its folder.")
        place.parent.mkdir(parents=True, exist_ok=True)
        if member.isdir():
            place.mkdir(exist_ok=True)
        elif member.issym():
            if (place.parent / member.linkname).resolve().is_relative_to(root):
                place.symlink_to(member.linkname)
        elif content := archive.extractfile(member):
            with content, place.open("wb") as target:
                shutil.copyfileobj(content, target)
            place.chmod(0o755 if member.mode & 0o100 else 0o644)


def _outputs(lock: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [out for stage in lock["stages"].values() for out in stage.get("outs", [])]


def _install(settings: Settings, project: Path) -> dict[str, str]:
    """Install the version's own lock beside its code, so that today's environment is not touched."""
    # PYTHONPATH may name this project's source, which has today's code.
    today = ("VIRTUAL_ENV", "PYTHONPATH")
    environment = {key: value for key, value in settings.environment().items() if key not in today}
    uv = shutil.which("uv", path=f"{Path('.tools/bin').absolute()}:{environment.get('PATH', '')}")
    if uv is None:
        raise ProjectError("uv is not found; run `make setup` and call this through `make reproduce VERSION=n`.")
    done = subprocess.run(
        [uv, "sync", "--quiet", "--frozen"], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ProjectError(f"the version's environment cannot be installed: {done.stderr.strip()[-800:]}")
    environment["PATH"] = f"{project / '.venv' / 'bin'}:{environment.get('PATH', '')}"
    environment["VIRTUAL_ENV"] = str(project / ".venv")
    environment["DVC_SITE_CACHE_DIR"] = site_cache(project)
    return environment


def _data(settings: Settings, project: Path, environment: Mapping[str, str]) -> None:
    """Bring the raw data of that day, from this project's cache or the remote store."""
    python = str(project / ".venv" / "bin" / "python")
    cache = str(Path(".dvc/cache").absolute())

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [python, "-m", "dvc", *words]
        return subprocess.run(command, cwd=project, env=dict(environment), capture_output=True, text=True, check=False)

    run("config", "--local", "core.no_scm", "true")
    run("config", "--local", "cache.dir", cache)
    if settings.data_remote or settings.data_remote_endpoint:
        dvc.configure_remote(settings, project / ".dvc")
    elif Path(".dvc/config").exists():  # a relative folder in it means one of this project
        address = dvc.configure_remote(settings)
        dvc.configure_remote(settings, project / ".dvc")
        if "://" not in address:
            run("remote", "modify", "--local", "storage", "url", str(Path(".dvc", address).resolve()))
    done = run("checkout", "--force", str(Paths.RAW))
    if done.returncode or not (project / Paths.RAW).exists():
        done = run("pull", str(Paths.RAW))
    if done.returncode:
        raise ProjectError(
            f"the raw data of that version is neither in .dvc/cache nor in the remote store: {done.stderr.strip()[-400:]}"
        )
