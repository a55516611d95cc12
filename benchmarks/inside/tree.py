"""Run a command and watch the memory of all its processes. Runs in the project's environment, for psutil.

    python tree.py report.json command ...

The sum over the tree counts a page that two processes share twice, so it is never too small; it is sampled, so a peak
shorter than a sample can be missed. The largest process is the kernel's own high-water mark and exact.
"""

import json
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

EVERY = 0.1  # seconds


def label(process: psutil.Process) -> str:
    """The command of a process without interpreter and folders: `flight_delays train`."""
    words = [Path(word).name for word in process.cmdline()[:5] if not word.startswith("-")]
    while len(words) > 1 and words[0].startswith("python"):
        words = words[1:]
    return " ".join(words[:2]) or process.name()


def watch(root: psutil.Process, ended: threading.Event, peaks: Counter[str]) -> None:
    """Keep the largest sum, and the largest value of each command, until told to stop."""
    names: dict[psutil.Process, str] = {}
    while not ended.wait(EVERY):
        total = 0
        try:
            tree = [root, *root.children(recursive=True)]
        except psutil.Error:
            return
        for process in tree:
            try:
                rss = process.memory_info().rss
                name = names[process] = names.get(process) or label(process)
                if process.create_time() > time.time() - 1:  # it may just have forked, and become another command
                    names.pop(process)
            except psutil.Error:
                continue
            total += rss
            peaks[name] = max(peaks[name], rss)
        peaks[""] = max(peaks[""], total)


def main(report: Path, command: list[str]) -> int:
    begun = time.perf_counter()
    child = subprocess.Popen(command)
    ended, peaks = threading.Event(), Counter[str]()
    watcher = threading.Thread(target=watch, args=(psutil.Process(child.pid), ended, peaks), daemon=True)
    watcher.start()
    code = child.wait()
    seconds = time.perf_counter() - begun
    ended.set()
    watcher.join()
    unit = 1 if sys.platform == "darwin" else 1024
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    total = peaks.pop("", 0)
    report.write_text(
        json.dumps(
            {
                "seconds": seconds,
                "peak_bytes": max(total, largest),
                "largest_bytes": largest,
                "by_command": dict(peaks.most_common()),
            }
        )
    )
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
