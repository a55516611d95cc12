"""Render a project next to a repository, with IMPORT.md. The repository is only read.

python -m import_repo REPOSITORY [INTO]
"""

import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from . import columns, estimators, packages, reading, redaction, report, tables, values

TEMPLATE = Path(__file__).parent.parent
OWNER = re.compile(r"(?:[a-z+]+://[^/]+/|[^/:@]+@[^/:]+:)([A-Za-z0-9](?:[A-Za-z0-9-]{0,37}[A-Za-z0-9])?)/")
USAGE = "make import-repo REPOSITORY=../churn [INTO=../churn-mlops]"


class ImportRepoError(Exception):
    """A project that cannot be made; the text has the cause and the fix."""


def import_repo(repository: Path, into: Path | None = None) -> tuple[Path, reading.Repository]:
    """Make the project of a repository, and return its folder with the content of the repository."""
    repository = Path(os.path.abspath(repository.expanduser()))  # noqa: PTH100 - a link keeps its name
    into = into.expanduser() if into else repository.with_name(f"{repository.name}-mlops")
    check(repository, into)
    old = reading.read(repository)
    if all(source.problem == reading.OTHER_LANGUAGE for source in old.sources):
        raise ImportRepoError(f"{repository} has no Python: neither a readable .py file nor a notebook with code.")
    reads, hidden = tables.Tables(values.Code(old)), redaction.scan(old)
    models, facts = estimators.find(reads.code), columns.Facts(reads)
    target = facts.targets[0].column if facts.targets else ""
    given, note = answers(old, target, models[0].problem if models else "")

    def text(project: Path) -> str:
        names = re.findall(r'^\s*"([\w.-]+)', (project / "pyproject.toml").read_text(encoding="utf-8"), re.M)
        provided = set(map(packages.distribution, names))
        return report.Report(old, hidden, reads, facts, models, provided, into, note).text()

    render({key: hidden.clean(value) for key, value in given.items() if value}, into, text)
    return into, old


def check(repository: Path, into: Path) -> None:
    """Raise an ImportRepoError with the fix if the repository cannot be imported, before anything is read."""
    problem, made = "", start(repository / ".copier-answers.yml")
    if not repository.is_dir():
        problem = f"{repository} {'is a file' if repository.exists() else 'does not exist'}. Name a folder: {USAGE}"
    elif not os.access(repository, os.R_OK | os.X_OK):
        problem = f"{repository} cannot be read. Get the permission to read it."
    elif not any(repository.iterdir()):
        problem = f"{repository} is empty. Name the folder of the repository: {USAGE}"
    elif all(re.search(rf"^{name}:", made, re.M) for name in ("project_name", "data_source", "data_remote")):
        problem = f"{repository} was made by this template. Update it: cd {repository} && make update"
    elif os.path.lexists(into):
        problem = f"{into} exists. Move it away, or name another folder with INTO=..."
    elif into.resolve().is_relative_to(repository.resolve()):
        problem = f"{into} is in {repository}, which is not written to. Name a folder next to it with INTO=..."
    elif not into.parent.is_dir() or not os.access(into.parent, os.W_OK | os.X_OK):
        problem = f"{into.parent} is not a folder that can be written to. Make it, or name another one with INTO=..."
    if problem:
        raise ImportRepoError(problem)


def start(path: Path) -> str:
    """Return the first bytes of a regular file as text; an empty text for anything else."""
    with contextlib.suppress(OSError, ValueError):
        if stat.S_ISREG(path.lstat().st_mode):
            with path.open("rb") as file:
                return file.read(64 << 10).decode("utf-8", errors="replace")
    return ""


def answers(old: reading.Repository, target: str, problem: str) -> tuple[dict[str, str], str]:
    """Return the answers to the template's questions that the repository has, and a sentence about its license."""
    words = re.sub(r"[^\w ]+|_+", " ", old.root.name).strip()[:80].strip()
    names = [name for name in old.others if re.match(r"(?:licen[cs]e|copying)(?:\.\w+)?$", name, re.I)]
    text = " ".join(start(old.root / names[0]).split()) if names else ""
    texts = {"MIT": "Permission is hereby granted, free of charge", "BSD-3-Clause": "Neither the name of"}
    known = next((name for name, part in texts.items() if part in text), "Proprietary")
    note = f"The template has no text for {names[0]}: copy it." if names else "There is none: all rights reserved."
    last = re.search(r"^\S+ \S+ (.*?) <[^\n]*\n*\Z", start(old.root / ".git/logs/HEAD"), re.M)
    url = re.search(r'^\[remote "origin"\][^\[]*?^\s*url\s*=\s*(\S+)', start(old.root / ".git/config"), re.M)
    owner = OWNER.match(url[1]) if url else None
    return {
        "data_source": "own", "problem": problem, "licence": known,
        "project_name": words[:1].upper() + words[1:] if re.search(r"[A-Za-z0-9]", words) else "Imported project",
        "description": f"Predicts {target[:80]}." if target else "", "owner": owner[1] if owner else "",
        "author": last[1].strip()[:80] if last else "",
    }, note if known == "Proprietary" else ""  # fmt: skip


def render(given: dict[str, str], into: Path, text: Callable[[Path], str]) -> None:
    """Render to a temporary folder, add IMPORT.md, then rename the folder in one step."""
    import copier

    folder = Path(tempfile.mkdtemp(prefix=f".{into.name}.", suffix=".part", dir=into.parent))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a clone of the template with changes is rendered as it is
            copier.run_copy(str(TEMPLATE), folder / "project", data=given, defaults=True, quiet=True, vcs_ref="HEAD")
        (folder / "project/IMPORT.md").write_text(text(folder / "project"), encoding="utf-8")
        (folder / "project").rename(into)
    except copier.errors.CopierError as error:
        raise ImportRepoError(f"the template could not be rendered: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(words: list[str]) -> int:
    """Return the exit code: 0 if the project was made."""
    repository, into = [*words, "", ""][:2]
    try:
        if not repository:
            raise ImportRepoError(f"REPOSITORY is not set: {USAGE}")
        project, old = import_repo(Path(repository), Path(into) if into else None)
    except (ImportRepoError, OSError, ValueError) as error:
        print(f"error: {error}".encode("utf-8", "replace").decode(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 130
    files = len({source.file for source in old.sources})
    print(f"  read {files} files of code in {repository}; nothing in it was executed or changed")
    print(f"  made {project}: its IMPORT.md has the commands, and the line of code behind each value")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
