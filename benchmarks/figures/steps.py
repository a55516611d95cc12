"""What `make run` itself says about where its time went."""

from __future__ import annotations


def steps(output: str) -> str:
    """The text after `in all:` of the line `seconds ...` that a run ends with; it may be wrapped to the terminal."""
    lines = [line.strip() for line in output.splitlines()]
    for at, line in enumerate(lines):
        if line.startswith("seconds") and "in all" in line:
            following = []
            for more in lines[at + 1 :]:
                if more.startswith("report"):
                    break
                following.append(more)
            return " ".join([line.split("in all:")[1].strip(), *following]).strip()
    return ""
