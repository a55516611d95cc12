"""Pages of the documentation as scripts: their code blocks, and what executes them.

A fence names what its block is: `console` has commands after `$ ` and, below a command, lines of its output, where `...`
stands for any text; a command whose output has a line `error: ...` fails. Python without a file is run. Another language may be
followed by a file of the project: the block is a part of that file. A comment
before the fence says what a page does not show. `after: <text>`, `before: <text>` and `in place of: <text>` name the line of
the file where the block goes, with the indentation of that line; `at the end` adds it there; `the whole file` replaces
it; without a comment the block is in the file already. `executed by: <tests>` names the tests that execute the block, with the same commands.
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT, Project, end, wait_until

FENCE = re.compile(
    r"^(?P<pad> *)(?:<!-- (?P<note>[^>]*) -->\n\s*)?```(?P<language>[a-z]*) ?(?P<file>[^\n]*)\n(?P<text>.*?)^ *```$",
    re.M | re.S,
)
STARTED = 90  # seconds for a server to say that it is ready


@dataclass(frozen=True)
class Step:
    """A command of a page, and the lines of its output that the page shows."""

    command: str
    shown: str


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page, line: Where it is.
        language: `console`, `python`, `text` and so on.
        file: The file of the project that it is a part of, or empty.
        note: The comment before it, or empty.
        text: Its lines, without the indentation of the fence.
    """

    page: str
    line: int
    language: str
    file: str
    note: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def executors(self) -> list[str]:
        """The tests that execute the block, as pytest names them; none if a walk executes it."""
        return re.findall(r"[\w.]+::\w+", self.note) if self.note.startswith("executed by: ") else []

    @property
    def steps(self) -> list[Step]:
        """The commands, each with its output, if the block is a console."""
        parts = re.split(r"^\$ ", self.text, flags=re.M)[1:] if self.language == "console" else []
        return [
            Step(re.sub(r"  # .*$", "", part.partition("\n")[0]), part.partition("\n")[2].strip("\n")) for part in parts
        ]


def all_pages() -> list[Path]:
    """The README and every page below docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in their order."""
    text = page.read_text()
    return [
        Block(
            page.relative_to(ROOT).as_posix(),
            text[: found.start("language")].count("\n") + 1,
            found["language"],
            found["file"],
            found["note"] or "",
            textwrap.dedent(found["text"]),
        )
        for found in FENCE.finditer(text)
    ]


def module_of(test: str) -> str:
    """The source of the module of a test that is named as `test_x.py::test_y`.

    Raises:
        AssertionError: If there is no such test.
    """
    name, _, function = test.partition("::")
    path = ROOT / "tests" / name
    text = path.read_text() if path.exists() else ""
    assert re.search(rf"^def {function}\(", text, re.M), f"there is no {test}"
    return text


class Walk:
    """Executes the blocks of a page in a folder, as a reader would.

    Args:
        project: Its folder is where the page begins, its environment is that of the commands.
        scratch: An empty folder for what the walk notes.
        names: What the page calls by another name: `{"<repository>": "/somewhere"}`.
        before: What is done before a command, by the command; it is given the walk.
        servers: Commands that go on until the walk ends, each with a text that says that it is ready.
    """

    def __init__(
        self,
        project: Project,
        scratch: Path,
        names: Mapping[str, str] | None = None,
        before: Mapping[str, Callable[[Walk], object]] | None = None,
        servers: Mapping[str, str] | None = None,
    ) -> None:
        self.project = project
        self.scratch = scratch
        self.names = dict(names or {})
        self.before = dict(before or {})
        self.servers = dict(servers or {})
        self.printed: dict[str, str] = {}
        self.running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the servers that the page started."""
        while self.running:
            end(self.running.pop())

    def page(self, name: str) -> None:
        """Execute all blocks of a page that no other test executes.

        Raises:
            AssertionError: If a command fails, prints something else than the page shows, or a file lacks a block.
        """
        for block in blocks(ROOT / name):
            if not block.executors:
                self.block(block)

    def block(self, block: Block) -> None:
        """Execute one block."""
        for step in block.steps:
            self._run(block, step)
        if block.language == "python" and not block.file:
            self.project.python(self._named(block.text))
        if block.language == "sql":
            words = ("uv", "run", "--quiet", "--no-project", "--with", "duckdb>=1.4", "python", "-c")
            done = self.project.command(*words, f"import duckdb; print(duckdb.sql({block.text!r}))")
            assert done.returncode == 0, f"{block}: {done.stderr[-3000:]}"
            self.printed["sql"] = done.stdout
        if block.file and block.language != "console":
            self._edit(block)

    def _named(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace(name, value)
        return text

    def _run(self, block: Block, step: Step) -> None:
        if step.command in self.before:
            self.before[step.command](self)
        command = self._named(step.command)
        if step.command in self.servers:
            self._serve(command, self.servers[step.command])
            return
        moved = self.scratch / "folder"
        done = self.project.command("bash", "-c", f"{command}\ncode=$?; pwd >{moved}; exit $code")
        printed = done.stdout + done.stderr
        fails = re.search("^error: ", step.shown, re.M) is not None
        assert (done.returncode != 0) is fails, f"{block}: `{command}` exited {done.returncode}:\n{printed[-5000:]}"
        self.printed[step.command] = printed
        if step.shown:
            self._compare(block, command, self._named(step.shown), printed)
        self._go(Path(moved.read_text().strip()))
        moved.unlink()

    def _go(self, folder: Path) -> None:
        """Continue in another folder, and with the code in it."""
        more = {"PYTHONPATH": str(folder / "src")} if "PYTHONPATH" in self.project.environment else {}
        self.project = Project(folder, **{**self.project.environment, **more})

    @staticmethod
    def _compare(block: Block, command: str, shown: str, printed: str) -> None:
        """Compare what a page shows with a part of the output; blanks count as one, and `...` stands for anything."""
        parts = (r"\s+".join(map(re.escape, part.split())) for part in shown.split("..."))
        assert re.search(".*?".join(parts), printed, re.S), (
            f"{block}: `{command}` printed\n{printed[-5000:]}\nand the page shows\n{shown}"
        )

    def _serve(self, command: str, ready: str) -> None:
        log = self.scratch / f"{len(self.running)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.project.folder,
                env=self.project.environment_of({}),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.running.append(process)
        wait_until(
            lambda: ready in log.read_text(errors="replace") or process.poll() is not None,
            STARTED,
            lambda: f"`{command}` is not ready: {log.read_text(errors='replace')}",
        )
        assert process.poll() is None, f"`{command}` ended: {log.read_text(errors='replace')}"

    def _edit(self, block: Block) -> None:
        path = self.project.folder / block.file.replace("<package>", self.project.package)
        assert path.exists(), f"{block}: there is no {block.file}"
        text, new = path.read_text(), self._named(block.text)
        place, _, anchor = block.note.partition(": ")
        if place in ("the whole file", "at the end"):
            path.write_text(new if place == "the whole file" else text + new)
            return
        if not anchor:
            assert squeezed(new) in squeezed(text), f"{block}: {block.file} has no such part"
            return
        line = next((line for line in text.splitlines(keepends=True) if anchor in line), None)
        assert line is not None, f"{block}: {block.file} has no line with {anchor!r}"
        new = textwrap.indent(new, line[: len(line) - len(line.lstrip())])
        path.write_text(text.replace(line, {"before": new + line, "after": line + new, "in place of": new}[place], 1))


def squeezed(text: str) -> str:
    """A text without comments and blanks."""
    return re.sub(r"\s+", "", re.sub(r"\s+#.*", "", text))


def targets(block: Block) -> Iterator[str]:
    """The make targets that a block calls."""
    for step in block.steps:
        yield from re.findall(r"\bmake ([a-z][a-z-]*)", step.command)
