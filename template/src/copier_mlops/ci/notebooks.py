"""Run every notebook from top to bottom in the project's folder: each section has to show something, and none is committed
with what it showed, since rows of data have no place in git."""

import re
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from copier_mlops._errors import print_error

RUN = Path(".cache/notebooks")


def sections(notebook: Any) -> dict[str, bool]:
    """By the heading of each section (##) whether a cell of it shows a table, a picture or a text."""
    shows: dict[str, bool] = {}
    title = ""
    for cell in notebook.cells:
        heading = re.search(r"^## (.+)$", cell.source, re.M) if cell.cell_type == "markdown" else None
        if heading:
            title = heading[1].strip()
            shows[title] = False
        elif cell.cell_type == "code" and title:
            shows[title] |= any(one.output_type != "error" and one.get("name") != "stderr" for one in cell.outputs)
    return shows


def committed_outputs(notebook: Any) -> bool:
    return any(cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code")


def run(file: Path) -> list[str]:
    """Run one notebook; what is wrong with it, a sentence each."""
    notebook = nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call]
    found = []
    if committed_outputs(notebook):
        found.append(f"{file} holds outputs; clear them before it is committed (Edit, Clear all outputs)")
    try:
        manager = AsyncKernelManager(kernel_name="python3", transport="ipc")  # nobody else can listen
        NotebookClient(notebook, km=manager, timeout=600).execute()
    except CellExecutionError as error:
        return [*found, f"{file} stops: {error.ename}: {error.evalue}"]
    RUN.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, RUN / file.name)  # type: ignore[no-untyped-call]
    return found + [
        f"{file}: the section {title!r} shows nothing" for title, shown in sections(notebook).items() if not shown
    ]


def run_all() -> int:
    """Run all notebooks; return 0 if all of them ran."""
    files = sorted(Path("notebooks").glob("*.ipynb"))
    if files and not Path("data/validated").exists():
        return print_error("there is no data here for the notebooks; make pipeline (or make review) first")
    found = [line for file in files for line in run(file)]
    for line in found:
        print_error(line)
    if not found:
        print(f"{len(files)} notebooks ran; with what they show they are in {RUN}")
    return 1 if found else 0
