"""A look says all that it has found in JSON, tells people what they have to hear, and shows it on one page."""

import dataclasses
import datetime as dt
import functools
import json
from typing import Any

import msgspec
import numpy as np
import pytest

from copier_mlops.evaluation.metrics import Interval
from copier_mlops.monitoring import report_builder as builder
from copier_mlops.monitoring import report_html
from copier_mlops.monitoring import report_summary as summary
from copier_mlops.monitoring.challenger import Contest
from copier_mlops.monitoring.drift import compare
from copier_mlops.monitoring.label_join import REASONS, Joined
from copier_mlops.monitoring.log_aggregator import Seen
from copier_mlops.monitoring.performance import Expected, judge
from copier_mlops.monitoring.report import Report, moment
from copier_mlops.monitoring.report_builder import Fed
from copier_mlops.monitoring.report_reader import from_json
from copier_mlops.monitoring.verdict import Action, Verdict

from .test_log_aggregator import CONTRACT, NOW, WHEN, entries, labels_of, look, profile

FED = Fed(True, 1, ())


@functools.cache
def made(moved: float = 1.0, labelled: int = 300, rows: int = 600) -> Report:
    seen = look(entries(rows, 1, moved=moved), labels=labels_of(labelled, 1, moved) if labelled else None)
    return report(seen)


def report(seen: Seen, challenger: dict[str, Any] | None = None) -> Report:
    joined = seen.labels.joined()
    expected = Expected({"auc": Interval(0.75, 0.7, 0.8)}, {("colour", "red"): Interval(0.7, 0.6, 0.8)})
    judged = judge(
        joined.rows,
        CONTRACT,
        problem="classification",
        metric="auc",
        version=2,
        expected=expected,
        names=("colour",),
        times=20,
        seed=0,
        enough=100,
        former=seen.before(2),
    )
    found = compare(profile(), seen.window) if seen.window else None
    verdict = Verdict("drifted", "inferred", "Something <b>has</b> changed.", (Action("retrain", ("size has moved",)),))
    manifest = {
        "problem": "classification",
        "target": "late",
        "window": {"start": "2023-01-01", "test_start": "2023-12-30"},
    }
    return builder.report_of(
        {
            "at": NOW,
            **builder.about_model(
                manifest,
                {"metrics": {"answer_cost": 1.5}},
                {"version": 2, "since": "2024-01-02"},
                digest="abc",
                version=2,
                now=NOW,
            ),
            "window": {"since": WHEN.since, "until": WHEN.until, "rows": 1, "answers": seen.answers, "enough": True},
            "verdict": verdict.as_json(),
            "performance": builder.about_performance(judged, seen, found),
            "challenger": challenger,
            "drift": builder.about_drift(found, seen),
            "labels": builder.about_labels(joined, FED, seen),
            "log": builder.about_log(seen, WHEN),
            "traffic": builder.about_traffic(seen),
            "notes": ["a note"],
        }
    )


def test_it_is_json_without_numbers_that_are_none() -> None:
    text = json.dumps(made().as_json(), allow_nan=False)
    assert json.loads(text) == made().as_json()
    assert from_json(json.loads(text)) == made()


def test_a_report_of_an_earlier_release_is_read_as_far_as_it_goes() -> None:
    content = made().as_json()
    content["says"] = content["drift"]["once"] = content["drift"]["columns"]["size"]["once"] = "unknown"
    assert from_json(content) == made()
    del content["labels"], content["drift"]["multivariate"]["auc"]
    content["performance"]["metrics"]["auc"] = "0.7"
    content["verdict"]["actions"].append(None)
    found = from_json(content)
    assert found.labels.joined is None and found.drift.auc is None and "auc" not in found.performance.metrics
    assert found.verdict.actions == made().verdict.actions
    assert from_json(None) == from_json({}) == Report()


def test_a_section_with_a_wrong_value_is_not_written() -> None:
    with pytest.raises(msgspec.ValidationError):
        builder.report_of({"drift": {"rows": "many"}})
    with pytest.raises(msgspec.ValidationError):
        builder.report_of({"drift": {"colums": {}}})


def test_how_old_the_model_is() -> None:
    found = made()
    assert (found.age_days, found.answer_cost) == (30.0, 1.5)
    assert found.trained_at == found.live_since == "2024-01-02T00:00:00+00:00"
    nothing = builder.about_model({"problem": "regression", "target": "y"}, {}, {}, digest="abc", version=2, now=NOW)
    assert nothing["age_days"] is nothing["trained_at"] is None
    known = builder.about_model(
        {"problem": "regression", "target": "y"}, {"trained_at": "2024-01-28"}, {}, digest="abc", version=2, now=NOW
    )
    assert known["age_days"] == 1


def test_performance_by_labels_and_estimated() -> None:
    found = made().performance
    assert 0.5 < (found.metrics["auc"] or 0) < 1 and found.rows == 300
    assert found.expected == {"auc": 0.75}
    assert set(found.estimated) == {"brier", "auc", "accuracy"}
    weeks = {line.week: line for line in found.weeks}
    assert sum(line.answers or 0 for line in weeks.values()) == 600
    assert weeks["2024-01-22"].labelled == 0 and weeks["2024-01-22"].value is None
    assert all(line.estimated is not None for line in weeks.values())
    assert {line.group: line.expected for line in found.slices} == {"red": 0.7, "blue": None}
    assert found.slices[0].metrics.keys() == {"auc"}


def test_what_has_drifted_is_shown_then_and_now() -> None:
    content = made().as_json()["drift"]
    size = content["columns"]["size"]
    assert size["drifted"] is True
    assert sum(size["shares"]["then"]) == pytest.approx(1) and sum(size["shares"]["now"]) == pytest.approx(1)
    assert "shares" not in content["columns"]["colour"]
    assert content["multivariate"].keys() >= {"auc", "limit", "drifted"}


def test_labels_that_came_and_those_that_wait() -> None:
    found = made().labels
    assert (found.joined, found.waiting, found.aside) == (300, 300, {})
    assert made(labelled=0).labels.joined == 0


def test_what_is_drawn_over_time_are_numbers() -> None:
    found = summary.numbers(made())
    assert {"auc", "auc.low", "auc.expected", "auc.estimated", "drift.size", "drift.together", "rows"} <= set(found)
    assert all(isinstance(value, float) and np.isfinite(value) for value in found.values())
    assert found["drift.columns"] == len(made().drift.drifted_columns)
    assert "worse" not in summary.numbers(made(labelled=0))


def test_a_line_for_the_looks_to_come() -> None:
    line = summary.as_line(made())
    assert (line["actions"], line["drifted"], line["labelled"]) == (["retrain"], len(made().drift.drifted_columns), 300)
    assert json.loads(json.dumps(line)) == line


def test_on_a_terminal() -> None:
    text = "\n".join(summary.said(made()))
    assert text.startswith("DRIFTED (inferred): Something")
    assert "retrain: size has moved" in text and "note: a note" in text and "drifted: size: " in text


def test_troubles_of_the_log() -> None:
    seen = look(entries(200, 1))
    assert builder.troubles_of_log(seen, WHEN, 48) == ([], [])
    seen.counts.update(damaged=1, future=100, set_aside=5)
    troubles, notes = builder.troubles_of_log(seen, WHEN, 48)
    assert [line.split(" of ")[0] for line in troubles] == ["100", "5"]
    assert "a clock is wrong" in troubles[0] and "1 of 201 entries of the log are damaged" in notes[0]
    again = builder.troubles_of_log(seen, dataclasses.replace(WHEN, replay=True), 48)
    assert "later than the moment of this look" in again[1][1]
    silent = dataclasses.replace(WHEN, now=NOW + dt.timedelta(hours=50))
    assert "nothing was answered since 2024-01-28" in builder.troubles_of_log(seen, silent, 48)[0][0]
    assert "the log has no answers" in builder.troubles_of_log(look([]), WHEN, 48)[1][0]
    assert "nothing was compared" in builder.troubles_of_log(look([], known={}), WHEN, 48)[0][0]


def test_troubles_of_labels() -> None:
    rows = look([]).labels.joined().rows

    def told(labels: int, reasons: dict[str, int], fed: Fed = FED, replay: bool = False) -> tuple[list[str], list[str]]:
        return builder.troubles_of_labels(Joined(rows, labels, reasons), fed, dataclasses.replace(WHEN, replay=replay))

    assert told(100, {"repeated": 50, "corrected": 10, "no_value": 20, "outside_window": 20, "unknown": 50}) == ([], [])
    assert "none of 9 labels belongs to an answer" in told(9, {"unknown": 9})[0][0]
    assert REASONS["contradictory"] in told(100, {"contradictory": 2})[0][0]
    assert told(1000, {"contradictory": 2})[0] == []
    assert told(100, {"future": 50}, replay=True)[0] == []
    assert told(0, {}, Fed(True, 0, ("x.csv is broken",)))[0] == ["labels could not be read: x.csv is broken"]


WON = Contest(
    version=3,
    learnt_until=NOW,
    metric="auc",
    margin=0.0,
    says="<3> is better",
    rows=300,
    shadowed=20,
    champion=0.7,
    challenger=0.75,
    gain=Interval(0.05, 0.01, 0.09),
    better=True,
)


def test_the_champion_beside_the_challenger() -> None:
    found = report(look(entries(200, 1)), WON.as_json())
    assert found.challenger and found.challenger.learnt_until == NOW.isoformat()
    numbers = summary.numbers(found)
    assert {name: value for name, value in numbers.items() if name.startswith("challenger")} == {
        "challenger.rows": 300, "challenger.gain": 0.05, "challenger.low": 0.01, "challenger.high": 0.09,
    }  # fmt: skip
    assert summary.as_line(found)["challenger"] == {
        "version": 3, "better": True, "rows": 300, "gain": 0.05, "low": 0.01, "high": 0.09,
    }  # fmt: skip
    page = report_html.page("Late", found, {})
    assert "Is the challenger better?" in page and "&lt;3&gt; is better." in page
    assert "version 3, challenger" in page and "0.75" in page
    nothing = report(
        look([]), Contest(version=3, learnt_until=None, metric="auc", margin=0.0, says="nobody knows").as_json()
    )
    assert "nobody knows." in report_html.page("Late", nothing, {}) and "challenger.gain" not in summary.numbers(
        nothing
    )


def test_without_a_challenger_nothing_is_said_of_one() -> None:
    assert "challenger" not in "\n".join(summary.said(made()))
    assert "challenger" not in pages(made())[0]
    assert summary.as_line(made())["challenger"] is None


# ---------------------------------------------------------------------------------------------------------- Page


def pages(found: Report, before: list[dict[str, Any]] | None = None) -> tuple[str, dict[str, bytes]]:
    pictures = report_html.plots(found, before or [])
    return report_html.page("Late & <early>", found, pictures), pictures


def test_the_page_is_one_file_that_says_the_verdict_first() -> None:
    page, pictures = pages(made())
    assert {"weeks", "slices", "days", "column size"} <= set(pictures)
    assert page.count("data:image/png;base64,") == len(pictures)
    assert page.index("Something &lt;b&gt;has&lt;/b&gt; changed.") < page.index("How good are the answers?")
    assert "Late &amp; &lt;early&gt;" in page
    assert "Train again" in page and "a note." in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_tables_of_the_page_name_the_metric_and_the_time_zone() -> None:
    page, _ = pages(made())
    assert page.count("<th>auc</th>") == 2 and "<th>value</th>" not in page  # groups and versions
    assert "<td>True</td>" not in page and "<td>False</td>" not in page
    assert " UTC</p>" in page.split('class="verdict"')[0]
    assert "<p>none</p>" not in page and "<td>not judged</td>" in page


def test_the_same_numbers_give_the_same_page() -> None:
    assert pages(made())[0] == pages(from_json(json.loads(json.dumps(made().as_json()))))[0]


@pytest.mark.parametrize("labelled", [0, 1])
def test_a_page_without_labels(labelled: int) -> None:
    page, pictures = pages(made(labelled=labelled))
    assert "weeks" in pictures  # what is estimated
    assert "slices" not in pictures
    assert "n/a" in page


def test_a_page_of_nothing() -> None:
    empty = report(look([]))
    page, pictures = pages(empty)
    assert not pictures
    assert "no answer of version 2 has a label yet" in page
    untrained = report(look([], known={}))
    assert "Train again" in pages(untrained)[0]
    assert untrained.drift.columns == {} and untrained.as_json()["drift"]["multivariate"] == {}


def test_weeks_grow_with_the_looks() -> None:
    old = {"week": "2023-12-04", "labelled": 9, "value": 0.7, "low": 0.6, "high": 0.8, "estimated": None, "answers": 9}
    outdated = {**old, "week": "2024-01-15", "value": 0.1}
    before = [
        {"at": "2023-12-10T00:00:00+00:00", "drifted": 1, "weeks": [old, outdated]},
        {"at": "2023-12-11T00:00:00+00:00"},
    ]
    found = report_html.weeks(made(), before)
    assert [line["week"] for line in found] == ["2023-12-04", "2024-01-08", "2024-01-15", "2024-01-22"]
    assert found[2]["value"] != 0.1  # which was seen with fewer labels
    later = report_html.weeks(
        made(labelled=0), [{"weeks": made().as_json()["performance"]["weeks"]}]
    )  # a feed that is down
    assert [line["value"] for line in later] == [line.value for line in made().performance.weeks]
    assert "looks" in report_html.plots(made(), before)


def test_bars_of_numbers_and_names() -> None:
    column = {"edges": [0.0, 1.0, 2.0], "counts": [0, 50, 50, 0]}
    found = report_html.shares(column, [10, 0, 0, 10])
    assert sum(found["then"]) == pytest.approx(1) and found["now"][0] == found["now"][-1] == pytest.approx(0.5)
    assert len(found["edges"]) == len(found["then"]) + 1
    assert sum(report_html.shares(column, [0, 0, 0, 0])["now"]) == 0
    assert report_html.shares({"edges": [], "counts": [0]}, [0])["edges"] == []
    names = {"values": {f"n{number:02}": 20 - number for number in range(15)}, "other": 5}
    found = report_html.shares(names, [0] * 14 + [30, 10])
    assert len(found["names"]) == 11 and found["names"][-1] == "others" and "n14" in found["names"]
    assert sum(found["then"]) == pytest.approx(1) and sum(found["now"]) == pytest.approx(1)
    assert report_html.shares({"values": {"a": 3}, "other": 0}, [4, 0])["names"] == ["a"]


def test_a_moment_is_read_or_is_none() -> None:
    assert moment("2024-01-31") == dt.datetime(2024, 1, 31, tzinfo=dt.UTC)
    assert moment("2024-01-31T10:00:00+02:00") == dt.datetime(2024, 1, 31, 8, tzinfo=dt.UTC)
    assert moment("soon") is moment(None) is None
