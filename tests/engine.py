"""Podman on this machine, with images made from Debian and Python packages instead of a registry's.

The images have the names that projects use, so that a project's own files work unchanged. They replace `python:3.11-slim`,
HAProxy, Prometheus, Alertmanager and Grafana. Podman's storage, its networks and these images are below the folder of the
test session.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import workspace
from filelock import FileLock

PACKAGES = ("podman", "buildah", "runc", "mmdebstrap", "netavark", "aardvark-dns", "iptables", "haproxy")
BASE = "docker.io/library/python:3.11-slim"
PROXY = "docker.io/library/haproxy:3.2-alpine"
STAND_IN = Path(__file__).with_name("stand_in.py")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# `lock_type`: the default is one segment of shared memory for all storages of this machine.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{folder}/tmp"
volume_path = "{folder}/volumes"
image_copy_tmp_dir = "storage"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
default_subnet_pools = [{{"base" = "10.{subnet}.0.0/16", "size" = 24}}]
"""
STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
"""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an image is made.

    Attributes:
        name: name of the image in the local storage.
        packages: Debian packages, with all that they depend on.
        parent: recipe of the image that this one extends, instead of packages.
        python: whether the Python of this machine is added in /usr/local, as in the official image.
        files: text of each file, by its name in the root folder.
        entrypoint: command that the container runs, without its arguments.
        path: PATH in the container.
    """

    name: str
    packages: tuple[str, ...] = ()
    parent: Recipe | None = None
    python: bool = False
    files: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] = ()
    path: str = "/usr/sbin:/usr/bin:/sbin:/bin"

    @property
    def digest(self) -> str:
        """Digest of everything that the image depends on: a changed recipe is another image."""
        machine = [release(), sys.version if self.python else ""]
        text = json.dumps([asdict(self), machine], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def reference(self) -> str:
        """Reference of the image in the local storage."""
        return f"localhost/copier-mlops-tests/{self.name}:{self.digest}"


PYTHON = Recipe(
    name="python",
    packages=("ca-certificates", "libssl3", "libffi8", "libsqlite3-0", "zlib1g", "libbz2-1.0", "liblzma5"),
    python=True,
    path="/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)
# One image for three servers: most of the time is spent on Debian's base system and on the import.
SERVERS = Recipe(name="servers", packages=("haproxy", "prometheus", "prometheus-alertmanager"))
MONITORING = {
    "prometheus": Recipe(name="prometheus", parent=SERVERS, entrypoint=("/usr/bin/prometheus",)),
    "alertmanager": Recipe(name="alertmanager", parent=SERVERS, entrypoint=("/usr/bin/prometheus-alertmanager",)),
    "grafana": Recipe(
        name="grafana",
        parent=PYTHON,
        files=(("server.py", STAND_IN.read_text()),),
        entrypoint=("python", "/server.py"),
        path=PYTHON.path,
    ),
}
"""Images of the monitoring servers. Debian's versions are older than those that projects name; Grafana is a fake."""


def bring(*names: str) -> str:
    """Install missing commands.

    Returns:
        What is missing and why, or an empty string.
    """
    missing = [name for name in names if not shutil.which(name)]
    if not missing:
        return ""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"NOT RUN: {', '.join(missing)} is missing; install {' '.join(PACKAGES)}"
    failed = apt(*PACKAGES, *packages_of(missing))
    return f"NOT RUN: {', '.join(missing)} could not be installed: {failed}" if failed else ""


def apt(*packages: str) -> str:
    """Install Debian packages.

    Returns:
        The end of apt's error message, or an empty string.
    """
    options = ["-o", "DPkg::Lock::Timeout=600", "-qq"]
    # With this run level the packages of servers do not start them.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with FileLock(workspace.session() / "apt.lock"):
        for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            for attempt in range(5):
                done = subprocess.run(
                    ["apt-get", *options, *words], env=environment, capture_output=True, text=True, check=False
                )
                if done.returncode == 0:
                    break
                time.sleep(2 * attempt)  # the timeout above does not cover the lock of the package lists
            else:
                return done.stderr.strip()[-300:]
    return ""


def packages_of(names: list[str]) -> list[str]:
    """Return the Debian packages of commands that have another name."""
    return [{"sshd": "openssh-server"}.get(name, name) for name in names]


def folder() -> Path:
    """Return the folder of podman's storage, state and settings; it belongs to the test session."""
    return workspace.session() / "podman"


def storage() -> dict[str, str]:
    """Write the settings of podman for this session, and return the variables that name them."""
    place = folder()
    place.mkdir(exist_ok=True)
    subnet = 128 + int(hashlib.sha256(str(place).encode()).hexdigest(), 16) % 120  # sessions run at the same time
    for name, text in (("containers.conf", CONTAINERS_CONF), ("storage.conf", STORAGE_CONF)):
        (place / name).write_text(text.format(folder=place, subnet=subnet))
    (place / "auth.json").write_text("{}")
    return {
        "CONTAINERS_CONF": str(place / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
        "REGISTRY_AUTH_FILE": str(place / "auth.json"),
    }


def environment() -> dict[str, str]:
    """Return the settings of podman and the build options for a machine without a registry."""
    build = "--pull=never --network=host --format=docker"
    if CERTIFICATES.exists():
        build += f" --secret=id=ca_bundle,src={CERTIFICATES}"
    compose = str(Path(sys.executable).with_name("podman-compose"))
    names = ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "REGISTRY_AUTH_FILE")
    return {name: os.environ[name] for name in names} | {
        "DOCKER": "podman",
        "IMAGE_OPTIONS": build,
        "COMPOSE": compose,
    }


def podman(*words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    """Run podman on the storage of this session."""
    return subprocess.run(
        ["podman", *words],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=check,
        timeout=600,
    )


def images() -> str:
    """Make the images of the service and the proxy, once for the session.

    Returns:
        What is missing and why, or an empty string.
    """
    missing = bring("podman", "runc", "mmdebstrap", "haproxy")
    if not missing:
        provide(PYTHON, BASE)
        provide(SERVERS, PROXY)
    return missing


def watching(names: dict[str, str]) -> str:
    """Make the images of the monitoring servers, once for the session.

    Args:
        names: image reference of each server, as a project names it.

    Returns:
        What is missing and why, or an empty string.
    """
    missing = images()
    if not missing:
        for name, image in names.items():
            provide(MONITORING[name], image)
    return missing


def provide(recipe: Recipe, image: str) -> None:
    """Make an image if its storage does not have it, and give it the name that projects use."""
    with FileLock(folder() / "images.lock"):
        _make(recipe)
        podman("tag", recipe.reference, image)


def _make(recipe: Recipe) -> None:
    if podman("image", "exists", recipe.reference, check=False).returncode == 0:
        return
    if recipe.parent is None:
        podman("import", "--change", f"ENV PATH={recipe.path}", str(_archive(recipe)), recipe.reference)
        return
    _make(recipe.parent)
    with tempfile.TemporaryDirectory(prefix=f"{recipe.name}-") as scratch:
        lines = [f"FROM {recipe.parent.reference}", *(f"COPY {name} /" for name, _ in recipe.files)]
        (Path(scratch) / "Dockerfile").write_text("\n".join([*lines, f"ENTRYPOINT {json.dumps(recipe.entrypoint)}\n"]))
        for name, text in recipe.files:
            (Path(scratch) / name).write_text(text)
        podman("build", "--pull=never", "--tag", recipe.reference, scratch)


def release() -> str:
    """Return the code name of this machine's Debian release."""
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/etc/os-release").read_text().splitlines():
            if line.startswith("VERSION_CODENAME="):
                return line.partition("=")[2]
    return ""


def _archive(recipe: Recipe) -> Path:
    """Return the archive of a small Debian with the packages of a recipe; the workspace keeps it for other sessions."""
    archive = workspace.tools() / f"archives/{recipe.name}-{recipe.digest}.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{archive}.lock"), tempfile.TemporaryDirectory(prefix="image-") as scratch:
        if archive.exists():
            return archive
        words = [f"--include={','.join(recipe.packages)}"]
        if recipe.python:
            _copy_python(Path(scratch))
            words.append(f"--customize-hook=copy-in {' '.join(map(str, Path(scratch).iterdir()))} /usr/local/")
            words.append('--customize-hook=chroot "$1" ldconfig')
        partial = archive.with_name(f"partial-{archive.name}")
        words = ["mmdebstrap", "--variant=minbase", "--quiet", *words, release(), str(partial)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        partial.replace(archive)
    return archive


def _copy_python(target: Path) -> None:
    """Copy this machine's Python without its tests and the packages that were installed in it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"

    def left_out(place: str, names: list[str]) -> set[str]:
        inside, unused = Path(place).relative_to(sys.base_prefix), {"test", "idlelib", "tests", "__pycache__"}
        if inside.name == "bin":
            return {name for name in names if not name.startswith(("python", "pip"))}
        if inside.name == "site-packages":
            return {name for name in names if not name.startswith("pip")}
        return {name for name in names if name in unused or name.startswith("config-") or name.endswith(".a")}

    for name in ("bin", "include", f"lib/{version}"):
        shutil.copytree(Path(sys.base_prefix) / name, target / name, symlinks=True, ignore=left_out)
    for library in (Path(sys.base_prefix) / "lib").glob("libpython*.so*"):
        shutil.copy2(library, target / "lib", follow_symlinks=False)
