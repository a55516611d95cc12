"""How much there is to read."""

from __future__ import annotations

from lab import Lab
from rows import Row, limited

MEANING = {
    "files_in_render": "files of a project with the default answers, without tests/",
    "lines_of_python": "lines of Python under src/ of that project, comments included",
}


def measure(lab: Lab) -> list[Row]:
    project, _ = lab.render("size")
    files = [path.relative_to(project.folder) for path in project.folder.rglob("*") if path.is_file()]
    outside = [path for path in files if path.parts[0] not in ("tests", ".git")]

    def lines(top: str) -> int:
        chosen = [project.folder / path for path in files if path.parts[0] == top and path.suffix == ".py"]
        return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in chosen)

    found = [
        limited("files_in_render", len(outside), "files", 40, note=f"{len(files) - len(outside)} more under tests/"),
        limited("lines_of_python", lines("src"), "lines", note=f"{lines('tests'):,} more under tests/"),
    ]
    lab.drop("size")
    return found
