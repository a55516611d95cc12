"""What somebody could misuse: secrets in files, workflows, known weaknesses of the locked packages; and their list, an SBOM."""

import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
SBOM = Path("reports/sbom.json")
REQUIREMENTS = Path(".cache/requirements.txt")
HASHES = r"(^|/)(uv\.lock|dvc\.lock|run\.yaml|champion\.json|adoption\.json|forgotten\.txt|\.copier-answers\.yml|metrics\.json)$"
"""Files that tools write, full of digests."""
SILENT = ("ServiceError", "ConnectionError", "Max retries", "Temporary failure", "Failed to connect", "timed out")


def tool(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / name), *words], capture_output=True, text=True, check=False)


def warn(text: str) -> None:
    print(f"::warning::{text}" if os.environ.get("GITHUB_ACTIONS") else f"note: {text}")


def secrets() -> bool:
    """No file that git knows holds what looks like a key or a password."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    files = [name for name in listed.split("\0") if name and Path(name).is_file()]
    done = tool("detect-secrets-hook", "--no-verify", "--exclude-files", HASHES, *files)
    if done.returncode != 0:
        print(done.stdout + done.stderr, file=sys.stderr)
        print(
            "error: what looks like a secret is in a file. Take it back at its issuer, it is known now, and keep the next one "
            "in .env; `# pragma: allowlist secret` at the end of a line says that it is none",
            file=sys.stderr,
        )
    return done.returncode == 0


def workflows() -> bool:
    """Actions are pinned, permissions are the least, nothing foreign reaches a shell."""
    done = tool("zizmor", "--offline", "--pedantic", "--quiet", "--no-progress", ".github")
    if done.returncode != 0:
        print(done.stdout + done.stderr, file=sys.stderr)
        print("error: the workflows are not safe; what zizmor says stands above", file=sys.stderr)
    return done.returncode == 0


def weaknesses() -> bool:
    """No locked package has a known weakness, as far as the advisory service answers."""
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
        warn("no advisory service answers, so nobody looked for known weaknesses of packages")
        return True
    print(done.stdout + done.stderr, file=sys.stderr)
    print(
        "error: a package has a known weakness; `make lock`, or exclude-newer-package in pyproject.toml",
        file=sys.stderr,
    )
    return False


def bill_of_materials() -> bool:
    """Write reports/sbom.json, in CycloneDX."""
    SBOM.parent.mkdir(exist_ok=True)
    done = tool(
        "cyclonedx-py", "environment", sys.executable, "--pyproject", "pyproject.toml", "--output-file", str(SBOM)
    )
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        print("error: the list of packages could not be written", file=sys.stderr)
    return done.returncode == 0


def main() -> int:
    """0 if nothing was found; words name some of the checks."""
    checks = {check.__name__: check for check in (secrets, workflows, weaknesses, bill_of_materials)}
    unknown = [name for name in sys.argv[1:] if name not in checks]
    if unknown:
        print(f"error: there is no check {', '.join(unknown)}; there are {', '.join(checks)}", file=sys.stderr)
        return 2
    results = {name: checks[name]() for name in sys.argv[1:] or checks}
    for name, kept in results.items():
        print(f"{name.replace('_', ' ')}: {'nothing found' if kept else 'FAILED'}")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
