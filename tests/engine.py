"""Containers on this machine: podman, and images made of what Debian's and Python's packages bring.

On an ordinary machine docker or podman is there and pulls `python:3.11-slim`, HAProxy's image and those of the servers that watch from
their registry; a machine that reaches none makes them here, under the same names, so that the project's own files are used unchanged.
All that differs stands in this module.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

PACKAGES = ("podman", "buildah", "runc", "mmdebstrap", "netavark", "aardvark-dns", "iptables", "haproxy")
BASE = "docker.io/library/python:3.11-slim"
PROXY = "docker.io/library/haproxy:3.2-alpine"
"""Under this name stands Debian's version of HAProxy, an older one."""
WATCHING = {
    "prometheus": "prometheus",
    "alertmanager": "prometheus-alertmanager",
    "grafana": Path(__file__).with_name("stand_in.py"),
}
"""What stands under the names of those images: Debian's programs, older ones as well, and what answers where Grafana would."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SETTINGS = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
PLACE = Path(tempfile.gettempdir()) / "copier-mlops-engine"


def bring(*names: str) -> str:
    """Make sure that some commands are there; what is missing, in words, where they cannot be brought."""
    missing = [name for name in names if not shutil.which(name)]
    if not missing:
        return ""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"NOT RUN: {', '.join(missing)} is missing; install {' '.join(PACKAGES)}"
    words = ["apt-get", "-o", "DPkg::Lock::Timeout=600", "install", "-y", "-qq", "--no-install-recommends"]
    with FileLock(f"{PLACE}.apt.lock"):
        for more in (["apt-get", "update", "-qq"], [*words, *PACKAGES, *packages_of(missing)]):
            done = subprocess.run(more, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"NOT RUN: {', '.join(missing)} could not be installed: {done.stderr.strip()[-300:]}"
    return ""


def packages_of(names: list[str]) -> list[str]:
    """The packages that bring commands of another name."""
    return [{"sshd": "openssh-server"}.get(name, name) for name in names]


def environment() -> dict[str, str]:
    """What podman needs to be told here, and the options of a build that reaches no registry."""
    PLACE.mkdir(exist_ok=True)
    (PLACE / "containers.conf").write_text(SETTINGS)
    build = "--pull=never --network=host --format=docker"
    if CERTIFICATES.exists():
        build += f" --secret=id=ca_bundle,src={CERTIFICATES}"
    return {"DOCKER": "podman", "CONTAINERS_CONF": str(PLACE / "containers.conf"), "IMAGE_OPTIONS": build,
            "COMPOSE": str(Path(sys.executable).with_name("podman-compose"))}  # fmt: skip


def podman(*words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["podman", *words],
        env={**os.environ, **environment(), **more},
        capture_output=True,
        text=True,
        check=check,
        timeout=600,
    )


def images() -> str:
    """Make the images of what answers, once for all that runs here; what is missing, in words, where they cannot be made."""
    said = bring("podman", "runc", "mmdebstrap", "haproxy")
    if said:
        return said
    environment()
    with FileLock(f"{PLACE}.lock"):
        if podman("image", "exists", BASE, check=False).returncode:
            _python()
        if podman("image", "exists", PROXY, check=False).returncode:
            _haproxy()
    return ""


def watching(names: dict[str, str]) -> str:
    """Make the images of what watches, of programs that are installed here.

    Args:
        names: The image of each server, as a project names it.

    Returns:
        What is missing, in words, where they cannot be made.
    """
    said = images() or bring("prometheus", "prometheus-alertmanager")
    if said:
        return said
    with FileLock(f"{PLACE}.lock"):
        for name, image in names.items():
            if podman("image", "exists", image, check=False).returncode:
                with tempfile.TemporaryDirectory(prefix=f"{name}-") as scratch:
                    shutil.copy2(shutil.which(WATCHING[name]) or WATCHING[name], Path(scratch) / "server")
                    start = '["python", "/server"]' if name == "grafana" else '["/server"]'
                    (Path(scratch) / "Dockerfile").write_text(f"FROM {BASE}\nCOPY server /\nENTRYPOINT {start}\n")
                    podman("build", "--pull=never", "--tag", image, scratch)
    return ""


@contextmanager
def _root(*packages: str, into: Path | None = None) -> Iterator[Path]:
    """A small Debian as an archive, with what is in a folder laid into /usr/local."""
    with tempfile.TemporaryDirectory(prefix="image-") as scratch:
        archive = Path(scratch) / "base.tar"
        words = [f"--include={','.join(packages)}"]
        if into:
            words.append(f"--customize-hook=copy-in {' '.join(map(str, into.iterdir()))} /usr/local/")
            words.append('--customize-hook=chroot "$1" ldconfig')
        release = next(
            line.partition("=")[2]
            for line in Path("/etc/os-release").read_text().splitlines()
            if line.startswith("VERSION_CODENAME=")
        )
        done = subprocess.run(
            ["mmdebstrap", "--variant=minbase", "--quiet", *words, release, str(archive)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield archive


def _python() -> None:
    """This machine's Python on a small Debian, in the place where the official image has it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"

    def left_out(folder: str, names: list[str]) -> set[str]:
        place, gone = Path(folder).relative_to(sys.base_prefix), {"test", "idlelib", "tests", "__pycache__"}
        if place.name == "bin":  # what else was installed here is not in the official image
            return {name for name in names if not name.startswith(("python", "pip"))}
        if place.name == "site-packages":
            return {name for name in names if not name.startswith("pip")}
        return {name for name in names if name in gone or name.startswith("config-") or name.endswith(".a")}

    libraries = ("ca-certificates", "libssl3", "libffi8", "libsqlite3-0", "zlib1g", "libbz2-1.0", "liblzma5")
    with tempfile.TemporaryDirectory(prefix="python-") as scratch:
        for name in ("bin", "include", f"lib/{version}"):
            shutil.copytree(Path(sys.base_prefix) / name, Path(scratch) / name, symlinks=True, ignore=left_out)
        for library in (Path(sys.base_prefix) / "lib").glob("libpython*.so*"):
            shutil.copy2(library, Path(scratch) / "lib", follow_symlinks=False)
        with _root(*libraries, into=Path(scratch)) as archive:
            podman("import", "--change", "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", str(archive), BASE)


def _haproxy() -> None:
    with _root("haproxy") as archive:
        podman("import", "--change", "ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin", str(archive), PROXY)
