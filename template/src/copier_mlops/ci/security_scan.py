"""Security checks: secrets, files that do not belong in git, workflows, vulnerable packages; and the SBOM."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from copier_mlops._errors import print_error
from copier_mlops.ci import base as bases
from copier_mlops.ci import tracked_files
from copier_mlops.ci.code_ratchet import COMMENTS

BIN = Path(sys.executable).parent
SBOM = Path("reports/sbom.json")
REQUIREMENTS = Path(".cache/requirements.txt")
HASHES = r"(^|/)(uv\.lock|dvc\.lock|run\.yaml|champion\.json|adoption\.json|forgotten\.txt|\.copier-answers\.yml|metrics\.json)$"
"""Files that tools write, full of digests."""
SILENT = ("ServiceError", "ConnectionError", "Max retries", "Temporary failure", "Failed to connect", "timed out")


def tool(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    quick = {**os.environ, "DETECT_SECRETS_PERF_PREGATE": "1"}  # lines that no detector can match are skipped at once
    return subprocess.run(
        [str(BIN / name), *words], capture_output=True, text=True, errors="replace", check=False, env=quick
    )


def warn(text: str) -> None:
    print(f"::warning::{text}" if os.environ.get("GITHUB_ACTIONS") else f"note: {text}")


TOKENS = re.compile(
    rb"(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[0-9A-Za-z]{36}|github_pat_\w{22,}|glpat-[\w-]{20}|xox[baprs]-[\w-]{10,}"
    rb"|sk_live_\w{20,}|AIza[\w-]{35}|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
)
"""Secrets whose form is known; large files are searched only for these, so that the check takes a bounded time."""
ALLOWED = COMMENTS["allowlist"]
CHUNK = 4 << 20


def secrets(only: list[str] | None = None) -> bool:
    """Return whether no file holds what looks like a key or a password.

    Args:
        only: the files to read; by default those that git knows or would add, and the commits since the base.
    """
    names = bases.listed("ls-files", "-z", "--cached", "--others", "--exclude-standard") if only is None else only
    files = [name for name in names if Path(name).is_file()]
    large = [name for name in files if Path(name).stat().st_size > tracked_files.LARGE_BYTES]
    small = sorted({name if not name.startswith("-") else f"./{name}" for name in files} - {*large})
    good = True
    for start in range(0, len(small), 500):
        done = tool("detect-secrets-hook", "--no-verify", "--exclude-files", HASHES, *small[start : start + 500])
        if done.returncode != 0:
            print(done.stdout + done.stderr, file=sys.stderr)
            good = False
    for name in large:
        if holds_token(Path(name)):
            print_error(f"{name} holds a token or a private key")
            good = False
    base = bases.find()[0] if only is None else None
    if base and committed_token(base):
        print_error(f"a commit since {base.commit[:12]} adds a token or a private key")
        good = False
    if not good:
        print_error(
            "a file or a commit holds what looks like a secret. Revoke it where it was issued, since it is known now, and keep the "
            "next one in .env. If it is not a secret, end the line with `# pragma: allowlist secret`"
        )
    return good


def holds_token(file: Path) -> bool:
    """Whether a file of any size holds a secret whose form is known."""
    rest = b""
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            if TOKENS.search(rest + chunk):
                return True
            rest = chunk[-200:]
    return False


def committed_token(base: bases.Base) -> bool:
    """Whether a commit since the base adds a secret whose form is known, even if a later one removes it."""
    changes = bases.git("log", "-p", "--format=", "--unified=0", f"{base.commit}..HEAD")
    added = (line for line in changes.splitlines() if line.startswith("+") and not ALLOWED.search(line))
    return any(TOKENS.search(line.encode()) for line in added)


def files() -> bool:
    """Whether the change adds no large file, no table or model in a binary format, and no personal data."""
    base, note = bases.find()
    if note:
        warn(note)
    if (
        base is None
        and not os.environ.get("BASE")
        and bases.git("rev-parse", "--verify", "--quiet", "HEAD", fails=True)
    ):
        base = bases.Base("HEAD")  # on a machine: what is about to be committed
    findings = list(tracked_files.files(base))
    findings = base.reasoned(findings) if base else findings
    for one in findings:
        if one.reason:
            warn(f"{one.text}; reason: {one.reason}")
        else:
            print_error(
                f"{one.text}. Keep it below data/ (DVC versions it there) or in the store that the source reads, and take "
                f"it out of the commits. If it has to be here, add a line to a commit message: Lowers: {one.name}, because ..."
            )
    return all(one.reason for one in findings)


def workflows() -> bool:
    """Whether actions are pinned, permissions are the least, and no foreign text reaches a shell."""
    done = tool("zizmor", "--offline", "--pedantic", "--quiet", "--no-progress", ".github")
    if done.returncode != 0:
        print(done.stdout + done.stderr, file=sys.stderr)
        print_error("the workflows are not safe; the findings of zizmor are above")
    return done.returncode == 0


def weaknesses() -> bool:
    """Whether no locked package has a known vulnerability, as far as the advisory service responds."""
    REQUIREMENTS.parent.mkdir(parents=True, exist_ok=True)
    words = [
        "export",
        "--quiet",
        "--frozen",
        "--all-groups",
        "--no-emit-project",
        "--no-hashes",
        "--output-file",
        str(REQUIREMENTS),
    ]
    uv = next((str(path) for path in (Path(".tools/bin/uv"),) if path.exists()), "uv")
    subprocess.run([uv, *words], check=True, stdout=subprocess.DEVNULL)
    done = tool(
        "pip-audit", "--requirement", str(REQUIREMENTS), "--no-deps", "--disable-pip", "--progress-spinner", "off"
    )
    if done.returncode == 0:
        return True
    if any(word in done.stderr for word in SILENT):
        warn("the advisory service does not respond, so the packages were not checked for known vulnerabilities")
        return True
    print(done.stdout + done.stderr, file=sys.stderr)
    print_error("a package has a known vulnerability; run `make lock`, or set exclude-newer-package in pyproject.toml")
    return False


def bill_of_materials() -> bool:
    """Write reports/sbom.json in the format of CycloneDX."""
    SBOM.parent.mkdir(exist_ok=True)
    done = tool(
        "cyclonedx-py", "environment", sys.executable, "--pyproject", "pyproject.toml", "--output-file", str(SBOM)
    )
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        print_error("reports/sbom.json could not be written; the output of cyclonedx-py is above")
    return done.returncode == 0


def main() -> int:
    """Run the checks of the command line for the hook of pre-commit, which puts the files of a commit after --only."""
    selected, only = sys.argv[1:], None
    if "--only" in selected:
        place = selected.index("--only")
        selected, only = selected[:place], selected[place + 1 :]
    return scan(selected, only)


def scan(selected: Sequence[str], only: list[str] | None = None) -> int:
    """Run checks, and print what they found.

    Args:
        selected: names of the checks; empty for all of them.
        only: files to search for secrets; None for all of them.

    Returns:
        0 if nothing was found, 1 if something was, 2 if there is no such check.
    """
    checks: dict[str, Callable[[], bool]] = {
        check.__name__: check for check in (secrets, files, workflows, weaknesses, bill_of_materials)
    }
    if only is not None:
        checks["secrets"] = lambda: secrets(only)
    unknown = [name for name in selected if name not in checks]
    if unknown:
        return print_error(f"unknown check {', '.join(unknown)}; the checks are {', '.join(checks)}", 2)
    results = {name: checks[name]() for name in selected or checks}
    for name, kept in results.items():
        print(f"{name.replace('_', ' ')}: {'nothing found' if kept else 'FAILED'}")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
