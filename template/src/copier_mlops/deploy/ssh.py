"""The same on another machine, over SSH: what a deploy needs goes there, and runs there."""

from __future__ import annotations

import io
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import copier_mlops
from copier_mlops import _exit_codes
from copier_mlops.deploy import image
from copier_mlops.deploy.blue_green import DeployInProgressError
from copier_mlops.deploy.host import EngineError, settings
from copier_mlops.deploy.runtimes import DEPLOY

RUNTIME = Path(copier_mlops.__file__).parent
MODULES = ("__init__", "blue_green", "canary", "host", "image", "proxy", "rollout_checks", "runtimes")
BASE = ("__init__", "_audit_log", "_env_file", "_errors", "_exit_codes", "_files", "_locks", "_ports")
FILES = (*(f"{name}.py" for name in BASE), *(f"deploy/{name}.py" for name in MODULES))
"""What the host gets of the runtime: it has no environment of the project."""
PASSED = ("ENV", "IMAGE", "VERSION", "LEFT", "WHY", "ACTOR", "STEPS", "REPLICAS", "FORCE")


@contextmanager
def ssh(there: Mapping[str, str]) -> Iterator[list[str]]:
    """The words of a command that speaks with the host: with the key that was given, to no host but the one that is known.

    Raises:
        EngineError: If nobody said how the host is known.
    """
    host, _, port = there["DEPLOY_HOST"].partition(":")
    if not there.get("DEPLOY_KNOWN_HOSTS"):
        raise EngineError(
            "DEPLOY_KNOWN_HOSTS is not set, so another machine could answer for DEPLOY_HOST. `ssh-keyscan` prints the line, the "
            "host's administrator says whether it is right"
        )
    with tempfile.TemporaryDirectory() as scratch:
        known, key = Path(scratch) / "known_hosts", Path(scratch) / "key"
        known.write_text(there["DEPLOY_KNOWN_HOSTS"].strip() + "\n")
        words = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known}"]
        words += ["-p", port] if port else []
        if there.get("DEPLOY_KEY"):
            key.touch(mode=0o600)
            key.write_text(there["DEPLOY_KEY"].strip() + "\n")
            words += ["-o", "IdentitiesOnly=yes", "-i", str(key)]
        yield [*words, "--", host]


def packed() -> bytes:
    """What the host needs of the project."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in FILES:
            archive.add(RUNTIME / name, f"src/copier_mlops/{name}")
        for path in sorted(DEPLOY.iterdir()):
            archive.add(path)
    return content.getvalue()


def check(given: Mapping[str, str], key: str) -> None:
    """Check the image that is deployed.

    Raises:
        EngineError: If there is none, its signature is not valid, or it cannot be checked outside dev.
    """
    reference, environment = given.get("IMAGE", ""), given.get("ENV") or "dev"
    if not reference:
        raise EngineError("IMAGE is not set, e.g. IMAGE=ghcr.io/ada/flights@sha256:... as `make push-image` prints it")
    if key:
        image.verify(reference, given.get("SIGNATURE", ""), key)
    elif environment != "dev":
        raise EngineError(
            f"VERIFY_KEY is not set, so the signature of {reference} cannot be checked, and {environment} takes signed images only. "
            f"Set it to the public key that `make key` wrote: in .env here, or as a variable of the environment {environment} on GitHub"
        )


def act(what: str, given: Mapping[str, str]) -> None:
    """Do on the host what a command of blue_green.py does.

    Raises:
        EngineError: If the host is not reached, the image is not signed as it has to be, or the command fails there.
        DeployInProgressError: If another deployment to the same environment is in progress there.
    """
    there = settings()
    if what == "deploy":
        check(given, there.get("VERIFY_KEY", ""))
    folder = shlex.quote(there.get("DEPLOY_FOLDER") or image.project())
    passed = {name: given[name] for name in PASSED if given.get(name)}
    words = " ".join(f"{name}={shlex.quote(value)}" for name, value in passed.items())
    with ssh(there) as host:
        unpack = f"mkdir -p {folder} && tar -xzf - -C {folder}"
        done = subprocess.run([*host, unpack], input=packed(), check=False)
        if done.returncode:
            raise EngineError(f"{there['DEPLOY_HOST']} is not reached over SSH, or takes no files; why stands above")
        command = f"cd {folder} && PYTHONPATH=src {words} python3 -m copier_mlops.deploy.blue_green {what}"
        done = subprocess.run([*host, command], check=False)
        if done.returncode == _exit_codes.TRY_LATER:
            raise DeployInProgressError(f"{what} on {there['DEPLOY_HOST']} did not start; why stands above")
        if done.returncode:
            raise EngineError(f"{what} on {there['DEPLOY_HOST']} failed; why stands above")
