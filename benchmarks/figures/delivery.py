"""What an image weighs, and what changes of the version cost its clients: told by the tests that do it, since they know how."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree

from lab import ROOT, Lab, call, environment
from rows import Row, limited

MEANING = {
    "image_above_base": "what `make image` adds to the image below",
    "image_packages": "packages in it",
    "failed_requests": "requests that failed, of 300 a second through a deploy, two that fail and the way back, in containers",
    "rollback": "`make rollback`: registry and what answers, until the version before has answered its example rows",
}
TESTS = (
    "test_an_image_is_small_and_runs_with_no_rights",
    "test_no_request_fails_while_versions_change[containers]",
    "test_the_registry_and_what_answers_go_back_together",
)
LIMITS = {
    "image_above_base": ("MB", 200),
    "image_packages": ("packages", 30),
    "failed_requests": ("requests", 0),
    "rollback": ("s", 15),
}


def measure(lab: Lab) -> list[Row]:
    report = lab.folder / "delivery.xml"
    names = [f"tests/test_deploy.py::{name}" for name in TESTS]
    words = [sys.executable, "-m", "pytest", "-q", "--junitxml", str(report), "-o", "junit_family=xunit1", *names]
    call(words, ROOT, environment(CI="1"), timeout=3600)
    told = {one.get("name", ""): one.get("value", "") for one in ElementTree.parse(report).iter("property")}
    return [limited(name, float(told[name]), *LIMITS[name], note=told.get(f"{name}_note", "")) for name in MEANING]
