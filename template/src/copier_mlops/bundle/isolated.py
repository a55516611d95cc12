"""Load a bundle in a process of its own, whose environment has no secrets.

A bundle is code: its model is a pickle, its contract and features are Python. The commands that need a bundle also hold
the registry's credentials and the signing key. Such a command starts a process that loads the bundle, and requests scores
from it. The process returns JSON, which executes nothing.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import itertools
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pandas as pd

from copier_mlops import ProjectError
from copier_mlops._environment import for_model
from copier_mlops.bundle import bundle, bundle_files
from copier_mlops.bundle.bundle import Bundle
from copier_mlops.bundle.bundle_files import BundleError, StaleBundleError
from copier_mlops.contract.contract import Column, Contract, ContractError

_ERRORS: Mapping[str, type[ProjectError]] = {
    one.__name__: one for one in (BundleError, StaleBundleError, ContractError, ProjectError)
}

PR_SET_DUMPABLE = 4
"""From <sys/prctl.h>."""


class ModelError(BundleError):
    """The code of a bundle raised an error, or ended its process."""


@dataclass(frozen=True)
class Isolated(Bundle):
    """A bundle whose model is in another process.

    Attributes:
        process: Requests to that process.
        number: Number of the bundle in that process.
    """

    process: Callable[..., Any] = print
    number: int = 0

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return what `Bundle.score` returns.

        Raises:
            ModelError: If the bundle's code fails.
        """
        return cast(np.ndarray, self.process("score", self.number, rows))

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of this project there, with the loaded bundle as its first argument."""
        return self.process("call", self.number, function, *arguments)


def load(
    folder: Path, digest: str = "", read: bundle.Read = bundle.unpickled, process: Callable[..., Any] | None = None
) -> Isolated:
    """Check a bundle here, then load it in another process.

    Args:
        folder: Where the bundle is.
        digest: The recorded digest of the bundle; an empty text accepts any bundle whose checksums are valid.
        read: Reads the model; a function of a module.
        process: A process that runs already.

    Raises:
        BundleError: If a file is missing, changed or was added, or the digest is not the recorded one.
        StaleBundleError: If it cannot be loaded with the packages installed here.
    """
    files = bundle_files.contents(folder, digest)
    digest = bundle_files.digest_of(files)
    process = process or Process()
    number, columns = process("load", folder.absolute(), digest, read)
    allowed = [{**one, "allowed": None if one["allowed"] is None else tuple(one["allowed"])} for one in columns]
    contract = Contract(tuple(Column(**one) for one in allowed))
    manifest, expected, reference = bundle_files.facts_of(files)
    papers = bundle_files.papers_of(files)
    return Isolated(
        manifest, contract, _elsewhere, None, expected, reference, digest, papers, process=process, number=number
    )


def _elsewhere(rows: pd.DataFrame) -> pd.DataFrame:
    raise ModelError("the features of this bundle are computed in another process")


# ------------------------------------------------------------------------------------------------- The process


class Models:
    """The requests of the other process."""

    def __init__(self) -> None:
        self.loaded: dict[int, Bundle] = {}
        self.numbers = itertools.count()

    def __call__(self, request: str, *arguments: Any) -> Any:
        return getattr(self, request)(*arguments)

    def load(self, folder: Path, digest: str, read: bundle.Read) -> tuple[int, list[dict[str, Any]]]:
        number = next(self.numbers)
        self.loaded[number] = bundle.load(folder, read, digest=digest)
        return number, [asdict(column) for column in self.loaded[number].contract.columns]

    def score(self, number: int, rows: pd.DataFrame) -> np.ndarray:
        return self.loaded[number].score(rows)

    def call(self, number: int, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self.loaded[number], *arguments)


def hide_memory() -> None:
    """Keep other processes of the same user from reading the memory and /proc/<pid>/environ of this process.

    Only Linux has this attribute. It does not stop root, and a program that this process starts does not inherit it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library without prctl
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


class Process:
    """Requests to a process that has the models and no secrets. It ends with this object, and with this process."""

    def __init__(self) -> None:
        hide_memory()
        self.child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=for_model(),
        )
        self.one_at_a_time = threading.Lock()
        weakref.finalize(self, _end, self.child)

    def __call__(self, *request: Any) -> Any:
        """Return the result of a request.

        Raises:
            ProjectError: What the bundle's loading raised there.
            ModelError: If its code raised anything else, or its process ended.
        """
        assert self.child.stdin and self.child.stdout
        try:
            with self.one_at_a_time:
                _write(self.child.stdin, pickle.dumps(request))
                content = _read(self.child.stdout)
            reply = json.loads(content, object_hook=_decoded)
        except (OSError, EOFError) as error:
            raise ModelError(
                f"the process that loaded the bundle ended with exit code {self.child.wait()}; its output is above. "
                "A negative code is the number of a signal: -9 is mostly a lack of memory."
            ) from error
        if "error" in reply:
            name, text = reply["error"]
            raise _ERRORS[name](text) if name in _ERRORS else ModelError(f"{name}: {text}")
        return reply["value"]


def _end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin and child.stdout
    child.stdin.close()
    try:
        child.wait(2)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    child.stdout.close()


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Reply to requests until there are no more."""
    models = Models()
    while True:
        try:
            request = pickle.loads(_read(requests))  # noqa: S301 (from the process that started this one)
        except EOFError:
            return
        try:
            reply = {"value": models(*request)}
        except Exception as error:
            reply = {"error": (type(error).__name__, str(error))}
        _write(replies, json.dumps(reply, default=_encoded).encode())


def _write(stream: IO[bytes], content: bytes) -> None:
    stream.write(struct.pack("<Q", len(content)) + content)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes:
    """Return the next message.

    Raises:
        EOFError: If there is none, or only a part of one.
    """
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    content = stream.read(length := struct.unpack("<Q", head)[0])
    if len(content) < length:
        raise EOFError
    return content


def _encoded(value: object) -> Any:
    if isinstance(value, np.ndarray):
        numbers = np.ascontiguousarray(value, dtype="<f8")
        return {"__shape__": numbers.shape, "__base64__": base64.b64encode(numbers.tobytes()).decode()}
    if isinstance(value, bytes):
        return {"__base64__": base64.b64encode(value).decode()}
    return float(value) if isinstance(value, np.floating) else str(value)


def _decoded(found: dict[str, Any]) -> Any:
    if "__base64__" not in found:
        return found
    content = base64.b64decode(found["__base64__"])
    if "__shape__" not in found:
        return content
    return np.frombuffer(content, dtype="<f8").reshape(found["__shape__"]).copy()


def main() -> None:
    """Serve requests from the standard input. What a model prints goes to the standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the command, and this process with it
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    # Functions and errors have to be those of the module, not of `__main__`.
    from importlib import import_module

    import_module(__spec__.name).main()
