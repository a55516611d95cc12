"""Become a process of `make up`: `python -m copier_mlops.automation.launch NAME DIGEST`, as the supervisor's configuration has it.

The digest changes with the command and the environment, so that the supervisor notices a change.
"""

import json
import os
import sys
from pathlib import Path

PROCESSES = Path(".monitoring/supervisor/processes.json")


def main() -> None:
    """Replace this process."""
    process = json.loads(PROCESSES.read_text(encoding="utf-8"))[sys.argv[1]]
    os.execvpe(process["words"][0], process["words"], {**os.environ, **process["environment"]})


if __name__ == "__main__":
    main()
