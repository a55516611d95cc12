"""A bundle is loaded in a process without secrets, which executes the bundle's code instead of this process."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

from copier_mlops._environment import for_model, restart_for_model
from copier_mlops.bundle import bundle, bundle_files, isolated
from copier_mlops.bundle.bundle_files import BundleError, StaleBundleError
from copier_mlops.bundle.isolated import ModelError, Process
from copier_mlops.contract.validation import check_rows
from copier_mlops.registry.mlflow_registry import Record, Registry
from copier_mlops.settings import Paths, Settings

NAMES = (
    "SIGNING_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MASK_KEY",
    "MLFLOW_TRACKING_PASSWORD",
    "GH_TOKEN",
    "ANY",
)
SECRETS = {
    **dict.fromkeys(NAMES, "s3cret"),
    "SOURCE_URI": "postgresql://{}@db/flights".format("ada:s3cret"),
    "LD_PROXY": "http://{}@proxy:8080".format("ada:s3cret"),
    "NOTIFY_URLS": "slack://s3cret",
}


class Spy:
    """A model that returns the environment of the process that loads it."""

    def __init__(self) -> None:
        self.value = 1.0

    def __setstate__(self, state: dict[str, Any]) -> None:
        block = Path("/proc/self/environ")
        kernel = block.read_text() if block.exists() else ""
        Path("environment.json").write_text(json.dumps([dict(os.environ), kernel, os.getpid()]))

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        if Path("die").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        print("a model that prints")
        return np.arange(len(features)) / 3


@pytest.fixture
def spying(project: Path) -> Path:
    """A bundle with such a model."""
    trained = bundle.load(Paths.BUNDLE)
    folder, module = Path("spy"), sys.modules[__name__]
    with bundle.replacing(folder, reload=lambda written: trained) as partial:
        for name, content in bundle_files.contents(Paths.BUNDLE).items():
            if name != bundle_files.CHECKSUMS:
                (partial / name).parent.mkdir(exist_ok=True)
                (partial / name).write_bytes(content)
        cloudpickle.register_pickle_by_value(module)
        (partial / bundle.PICKLE).write_bytes(cloudpickle.dumps(Spy()))
        cloudpickle.unregister_pickle_by_value(module)
    return folder


def test_the_process_of_a_model_has_no_secrets(
    spying: Path, monkeypatch: pytest.MonkeyPatch, rows: pd.DataFrame
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    loaded = isolated.load(spying, bundle_files.digest(spying), process=Process())
    environment, kernel, pid = json.loads(Path("environment.json").read_text())
    assert "s3cret" not in str(environment) + kernel
    assert environment["OMP_NUM_THREADS"] == "1" and pid != os.getpid()
    there = bundle.load(Paths.BUNDLE)
    assert (loaded.contract, loaded.manifest, loaded.expected) == (there.contract, there.manifest, there.expected)
    with pytest.raises(ModelError, match="Error: "):
        loaded.score(pd.DataFrame())
    assert len(loaded.score(rows)) == len(rows)  # an error does not end the process
    Path("die").touch()
    with pytest.raises(ModelError, match="ended with exit code -9"):
        loaded.score(rows)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this attribute")
def test_a_model_cannot_read_the_memory_of_the_process_that_starts_it() -> None:
    program = (
        "import ctypes, sys\n"
        f"from {isolated.__name__} import Process\n"
        "before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"  # PR_GET_DUMPABLE
        "Process()\n"
        "print(before, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
    )
    root = Path(isolated.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]


def test_recording_a_run_loads_no_model(spying: Path) -> None:
    loaded = bundle.load(Paths.BUNDLE)
    rows = pd.DataFrame(**bundle.expected_rows(loaded.expected))
    example = check_rows(rows, bundle.for_examples(loaded.contract), labelled=False).good
    tags = {"bundle": bundle_files.digest(spying)}
    registry = Registry(Settings())
    run_id = registry.log(Record("spy", True, {}, {}, tags, {spying: "bundle"}, spying, loaded.contract, example))
    assert registry.find("spy") == run_id
    assert not Path("environment.json").exists()  # the model writes it when it is loaded


def test_a_bundle_scores_there_as_here(project: Path, rows: pd.DataFrame) -> None:
    here, there = bundle.load(Paths.BUNDLE), isolated.load(Paths.BUNDLE, process=Process())
    assert (there.score(rows) == here.score(rows)).all()
    assert bundle.verify(there) == 0
    assert there.answer(rows).equals(here.answer(rows))
    with pytest.raises(ModelError, match="another process"):
        there.build_features(rows)


def test_errors_of_loading_come_back_as_they_are(project: Path) -> None:
    with pytest.raises(BundleError, match="is not the recorded one"):
        isolated.load(Paths.BUNDLE, "0" * 64)
    models = isolated.Models()
    requests, replies = io.BytesIO(), io.BytesIO()
    for request in (("load", Paths.BUNDLE, "0" * 64, bundle.unpickled), ("load", Paths.BUNDLE, "", fails)):
        isolated._write(requests, isolated.pickle.dumps(request))
    requests.seek(0)
    isolated.serve(requests, replies)
    replies.seek(0)
    errors = [json.loads(isolated._read(replies))["error"] for _ in range(2)]
    assert [name for name, _ in errors] == ["BundleError", "StaleBundleError"]
    assert "is not the recorded one" in errors[0][1] and "MemoryError: of old" in errors[1][1]
    with pytest.raises(StaleBundleError, match="of old"):
        models("load", Paths.BUNDLE, "", fails)


def fails(files: bundle_files.Contents) -> Any:
    raise MemoryError("of old")


def test_values_survive_the_way_back() -> None:
    numbers = np.array([[0.1, np.nan], [np.inf, 1e-300]])
    value = {"numbers": numbers, "content": b"\x00\xff", "each": (np.float32(0.5), Path("a"))}
    found = json.loads(json.dumps(value, default=isolated._encoded), object_hook=isolated._decoded)
    assert np.array_equal(found["numbers"], numbers, equal_nan=True)
    assert (found["content"], found["each"]) == (b"\x00\xff", [0.5, "a"])


def test_a_part_of_a_message_is_an_end() -> None:
    for content in (b"", b"123", struct.pack("<Q", 9) + b"1234"):
        with pytest.raises(EOFError):
            isolated._read(io.BytesIO(content))


def test_a_model_gets_variables_that_are_named() -> None:
    given = {**SECRETS, "PATH": "/bin", "GPU": "1", "MODEL_ENVIRONMENT": "GPU ANY"}
    assert for_model(given) == {"PATH": "/bin", "GPU": "1", "ANY": "s3cret", "PYTHONUTF8": "1"}


@pytest.mark.parametrize(
    ("name", "reaches_model"),
    [
        ("LC_ALL", True),
        ("LANG", True),
        ("LD_LIBRARY_PATH", True),
        ("OMP_NUM_THREADS", True),
        ("KMP_AFFINITY", True),
        ("CUDA_VISIBLE_DEVICES", True),
        ("NVIDIA_VISIBLE_DEVICES", True),
        ("PYTHONHASHSEED", True),
        ("LDAP_PASSWORD", False),
        ("LD_PRELOAD", False),
        ("LD_API_KEY", False),
        ("LCDB_DSN", False),
        ("NVIDIA_API_KEY", False),
        ("NVIDIA_NGC", False),
        ("CUDA_SECRET", False),
        ("CUDADB_CONNECTION", False),
        ("MKL_LICENSE_TOKEN", False),
        ("OMP_CREDENTIALS", False),
        ("PYTHON_API_TOKEN", False),
        ("PYTHON_KEYRING_BACKEND", False),
        ("PYTHONPASS", False),
        ("DYLD_INSERT_LIBRARIES", False),
    ],
)
def test_a_model_gets_exact_names_only(name: str, reaches_model: bool) -> None:
    assert (name in for_model({name: "value"})) is reaches_model


def test_a_command_that_needs_no_secret_starts_again_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *given: started.append(given))
    monkeypatch.setenv("SIGNING_KEY", "s3cret")
    restart_for_model({**os.environ, "OMP_NUM_THREADS": "3"})
    program, words, environment = started.pop()
    assert words[0] == program and "s3cret" not in str(environment)
    assert environment["OMP_NUM_THREADS"] == "3"
    for name in os.environ.keys() - environment.keys():
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    restart_for_model({**os.environ, "SIGNING_KEY": "s3cret"})
    assert started == []
