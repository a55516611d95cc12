"""The image of the service: src/ and one bundle, with the packages that answer and their list; its signature, its way to a registry."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from copier_mlops import _files
from copier_mlops.deploy.host import EngineError, docker, run, settings
from copier_mlops.deploy.runtimes import BUNDLE, DEPLOY, Release

BASE = "docker.io/library/python:3.11-slim"
REQUIREMENTS, SBOM = Path("dist/requirements.txt"), Path("dist/sbom.json")
MADE, SIGNATURE = Path("dist/image.json"), Path("dist/image.sig")
NEVER_IMPORTED = {
    "flatbuffers": "by the tools of ONNX Runtime, which do not come along either",
    "h11": "by uvicorn's slower parser",
    "packaging": "by the tools of ONNX Runtime",
    "protobuf": "by the tools of ONNX Runtime",
    "pycparser": "by cffi where it compiles",
}
"""What others ask for and a service that answers with ONNX runs without; the build imports the service, and so would miss it."""
RELEASES = Path(".deploy/releases")
POINTER = Path("champion.json")


def project() -> str:
    """The name of the project, and so of its image."""
    match = re.search(r'^title="([^"]+)"|image\.title="([^"]+)"', (DEPLOY / "Dockerfile").read_text(), re.M)
    assert match is not None
    return match[1] or match[2]


# -------------------------------------------------------------------------------------------------- What goes into it


def bundle(version: int | None) -> dict[str, Any]:
    """See to it that dist/bundle is that of a version, the champion's by default.

    Returns:
        What its manifest and its lineage say, and its digest.

    Raises:
        EngineError: If there is no such version.
    """
    pointer = champion()
    wanted = pointer.get("version") if version is None else version
    if wanted is None:
        raise EngineError("there is no champion yet, and so nothing to answer with. `make run` trains one")
    here = facts() if (BUNDLE / "manifest.json").exists() else {}
    same = here.get("version") == wanted and (wanted != pointer.get("version") or here.get("run") == pointer["run_id"])
    if not same or (settings().get("SIGNING_KEY") and not (BUNDLE / "signature").exists()):
        done = subprocess.run([sys.executable, "-m", "copier_mlops", "bundle", "--version", str(wanted)], check=False)
        if done.returncode:
            raise EngineError(f"the bundle of version {wanted} could not be made; why stands above")
    return facts()


def champion() -> dict[str, Any]:
    """Return the content of champion.json; empty if there is none.

    Raises:
        EngineError: If the file is damaged.
    """
    try:
        found: dict[str, Any] = json.loads(POINTER.read_text(encoding="utf-8")) if POINTER.exists() else {}
        if found and not (isinstance(found["version"], int) and isinstance(found["run_id"], str)):
            raise ValueError("its version or its run_id is not valid")
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{POINTER} is damaged ({type(error).__name__}: {error}). `git restore {POINTER}` brings back the committed file"
        ) from error
    return found


def facts() -> dict[str, Any]:
    """Manifest, lineage and digest of dist/bundle."""
    papers = [BUNDLE / "manifest.json", BUNDLE / "lineage.json"]
    found: dict[str, Any] = {}
    for paper in papers:
        found |= json.loads(paper.read_text(encoding="utf-8")) if paper.exists() else {}
    return {**found, "digest": hashlib.sha256((BUNDLE / "checksums.txt").read_bytes()).hexdigest()}


def requirements(runtime: str, python: str) -> None:
    """Write the locked packages of the service, with their hashes, for Linux and one Python; none that it never imports."""
    from packaging.markers import Marker

    group = "service" if runtime == "onnx" else "service-estimator"
    words = [
        "export",
        "--frozen",
        "--quiet",
        "--only-group",
        group,
        "--no-emit-project",
        "--no-annotate",
        "--no-header",
    ]
    text = run([os.environ.get("UV", "uv"), *words]).stdout
    there = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython",
             "platform_python_implementation": "CPython", "python_version": python, "python_full_version": f"{python}.0"}  # fmt: skip
    kept = []
    for entry in text.replace("\\\n", " ").splitlines():
        words = shlex.split(entry.partition(" --hash")[0].partition(";")[0])
        marker = entry.partition(" --hash")[0].partition(";")[2].strip()
        if runtime == "onnx" and words and words[0].partition("==")[0] in NEVER_IMPORTED:
            continue
        if words and (not marker or Marker(marker).evaluate(there)):
            hashes = re.findall(r"--hash=\S+", entry)
            kept.append(" \\\n    ".join([words[0], *hashes]))
    REQUIREMENTS.parent.mkdir(exist_ok=True)
    _files.write_text(REQUIREMENTS, "\n".join(kept) + "\n", sync=True)


def bill_of_materials(told: Mapping[str, Any]) -> None:
    """Write the list of those packages, and of the model, in CycloneDX."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    run([str(tool), "requirements", str(REQUIREMENTS), "--pyproject", "pyproject.toml", "--output-reproducible", "--output-file", str(SBOM)])  # fmt: skip
    listed = json.loads(SBOM.read_text())
    model = {"type": "machine-learning-model", "bom-ref": "model", "name": project(), "version": str(told["version"]),
             "hashes": [{"alg": "SHA-256", "content": told["digest"]}]}  # fmt: skip
    listed["components"] = [*listed.get("components", []), model]
    _files.write_text(SBOM, json.dumps(listed, indent=2) + "\n", sync=True)


def sources() -> Iterator[Path]:
    """The files of an image but for its bundle."""
    yield from sorted(path for path in Path("src").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    yield from (DEPLOY / "Dockerfile", Path("uv.lock"))


def tag(told: Mapping[str, Any], base: str) -> str:
    """Names an image by what is in it: the version, its bundle, the code."""
    code = hashlib.sha256(base.encode())
    for path in sources():
        code.update(path.as_posix().encode() + b"\0" + path.read_bytes())
    return f"{told['version']}-{told['digest'][:12]}-{code.hexdigest()[:8]}"


def commit() -> str:
    """The commit of the project's code, marked if files differ from it."""
    head = run(["git", "rev-parse", "HEAD"], fails=True).stdout.strip()
    changed = head and run(["git", "status", "--porcelain", "src", "uv.lock", "deploy"], fails=True).stdout.strip()
    return f"{head}-changed" if changed else head


# --------------------------------------------------------------------------------------------------------- Making it


def build(version: int | None) -> Release:
    """Make the image of a version, the champion by default, with docker or podman; one that is here already is taken.

    Raises:
        EngineError: If there is no engine, no such version, or the build fails.
    """
    engine = docker()
    told = bundle(version)
    base = settings().get("BASE", BASE)
    reference = f"{project()}:{tag(told, base)}"
    if run([*engine, "image", "inspect", reference], fails=True).returncode:
        python = re.search(r"python:(3\.\d+)", base)
        requirements(told["runtime"], python[1] if python else f"3.{sys.version_info.minor}")
        bill_of_materials(told)
        given = {"BASE": base, "VERSION": told["version"], "DIGEST": told["digest"], "RUN": told.get("run", ""),
                 "COMMIT": commit(), "SOURCE": told.get("commit", "")}  # fmt: skip
        words = [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]
        options = shlex.split(settings().get("IMAGE_OPTIONS", ""))
        print(f"building {reference} with {engine[0]}", flush=True)
        run([*engine, "build", *options, *words, "--file", str(DEPLOY / "Dockerfile"), "--tag", reference, "."])
    release = Release(told["version"], told["digest"], reference)
    text = json.dumps({**vars(release), "run": told.get("run", "")}, indent=2) + "\n"
    _files.write_text(MADE, text, sync=True)
    return release


def unpack(version: int | None) -> Release:
    """The same without an engine: a folder that stands for the image.

    Raises:
        EngineError: If there is no such version.
    """
    told = bundle(version)
    folder = RELEASES / tag(told, sys.version)
    if not folder.exists():
        with _files.replacing_folder(folder) as partial:
            shutil.copytree("src", partial / "src", ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copytree(BUNDLE, partial / "bundle")
    return Release(told["version"], told["digest"], str(folder))


def described(reference: str) -> Release:
    """The release that an image of a registry is, by its labels; it is fetched if it is not here.

    Raises:
        EngineError: If it cannot be fetched, or is not of this project.
    """
    engine = docker()
    inspect = [*engine, "image", "inspect", "--format", "{{json .Config.Labels}}", reference]
    if run(inspect, fails=True).returncode:
        run([*engine, "pull", "--quiet", reference])
    labels = json.loads(run(inspect).stdout) or {}
    if labels.get("org.opencontainers.image.title") != project():
        raise EngineError(f"{reference} is no image of {project()}: its labels do not say so")
    return Release(int(labels["model.version"]), labels["model.digest"], reference)


# -------------------------------------------------------------------------------------------------- Handing it on


def push(registry: str) -> str:
    """Bring the image that was made to a registry.

    Returns:
        Its name there, by digest.
    """
    engine, made = docker(), json.loads(MADE.read_text())
    there = f"{registry.rstrip('/')}/{made['image'].removeprefix('localhost/')}".lower()
    run([*engine, "tag", made["image"], there])
    if engine[0].endswith("podman"):
        with tempfile.TemporaryDirectory() as scratch:
            run([*engine, "push", *shlex.split(settings().get("PUSH_OPTIONS", "")), "--digestfile", f"{scratch}/digest", there])  # fmt: skip
            digest = Path(scratch, "digest").read_text().strip()
    else:
        said = run([*engine, "push", *shlex.split(settings().get("PUSH_OPTIONS", "")), there]).stdout
        found = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
        if not found:
            raise EngineError(f"the registry named no digest for {there}:\n{said[-500:]}")
        digest = found[1]
    pushed = f"{there.rpartition(':')[0]}@{digest}"
    _files.write_text(MADE, json.dumps({**made, "pushed": pushed}, indent=2) + "\n", sync=True)
    return pushed


def sign(private: str) -> str:
    """Sign the image that was pushed: Ed25519 over its name by digest, with the key of the bundles.

    Returns:
        The signature, in base64; it is in dist/image.sig too.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pushed = json.loads(MADE.read_text())["pushed"]
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(private))
    signature = base64.b64encode(key.sign(pushed.encode())).decode()
    _files.write_text(SIGNATURE, signature + "\n", sync=True)
    return signature


def verify(pushed: str, signature: str, public: str) -> None:
    """Check the signature of an image's name by digest.

    Raises:
        EngineError: If it is not valid, or the image is not named by its digest: a tag can be moved to another image.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not re.search(r"@sha256:[0-9a-f]{64}$", pushed):
        raise EngineError(
            f"{pushed} is not the name of an image by digest (NAME@sha256:...), as `make push-image` prints it"
        )
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public)).verify(
            base64.b64decode(signature), pushed.encode()
        )
    except (InvalidSignature, ValueError) as error:
        raise EngineError(
            f"the signature of {pushed} does not hold: another key signed it than the one that VERIFY_KEY names, or it is "
            "another image. It is not deployed"
        ) from error


def output(name: str, value: str) -> None:
    """Hand a value to the steps that follow in a workflow."""
    if os.environ.get("GITHUB_OUTPUT"):
        with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
            file.write(f"{name}={value}\n")


def shared(uri: str) -> bool:
    """Whether others than this machine see the registry of models."""
    return "://" in uri and not uri.startswith(("sqlite:", "file:"))


def delivery(there: Mapping[str, str]) -> None:
    """Say, to people and to the steps that follow, what can be delivered from here."""
    uri, registry = there.get("MLFLOW_TRACKING_URI", ""), there.get("REGISTRY", "")
    missing = [] if shared(uri) else ["MLFLOW_TRACKING_URI names no server"]
    missing += [] if registry else ["REGISTRY names no place for images"]
    missing += [] if POINTER.exists() else ["there is no champion.json yet"]
    if missing:
        said = f"not configured: {'; '.join(missing)}. Nothing is delivered; docs/deploying.md of the template says how"
        print(f"::notice::{said}" if os.environ.get("GITHUB_ACTIONS") else said)
    output("configured", "false" if missing else "true")
    output("host", registry.partition("/")[0])
