"""Drift: what it costs to look at many rows, how often it alarms for nothing and how often it sees, beside other tools.

This file is also the script that those processes run, each once and whole, `lab` and `rows` beside it on the path:

python drift.py write rows.parquet 1000000 1     rows of one distribution
python drift.py keep profile.json rows.parquet   the profile that a bundle would keep of the first hundred thousand
python drift.py ours profile.json rows.parquet 1 the rows, so many times, against that profile
python drift.py scipy reference.parquet rows.parquet
python drift.py evidently reference.parquet rows.parquet
python drift.py nannyml reference.parquet rows.parquet
python drift.py rates 200                        false alarms and detections, as JSON
python drift.py change changed.parquet 100000 2  rows of which most columns have changed
python drift.py same_ours profile.json changed.parquet       what the bins of the profile come to, by column
python drift.py same_scipy then.parquet changed.parquet      the same statistics of the rows themselves
python drift.py same_evidently then.parquet changed.parquet
python drift.py same_nannyml then.parquet changed.parquet
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from lab import INSIDE, PACKAGE, Lab, Project, call, environment
from rows import Row, limited, repeated

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ROWS = 1_000_000
MANY = 50
REPETITIONS = 5
DRAWS = 200
WINDOW = 5_000
REFERENCE = 100_000
SMALL = 2_000
NUMBERS = ("normal", "partner", "flat", "skewed", "mostly zero", "count", "degrees", "gaps", "heavy", "dwindling")
NAMES = {"three": 3, "ten": 10, "sixty": 60, "many": 400}
OTHERS = {  # what is installed for each, in an environment of its own: neither runs with the newest pandas
    "evidently": ("evidently>=0.7", "pandas<3"),
    "nannyml": ("nannyml>=0.13", "setuptools<81", "statsmodels"),  # the last it imports, and does not ask for
}
SILENT = {
    "DO_NOT_TRACK": "1",
    "NML_DISABLE_USAGE_LOGGING": "1",
}  # nobody is told, which without a network takes seconds
AT_MOST = {"evidently": round(1 / 15, 4)}  # of its time: fifteen times faster
MEANING = {
    "drift_time": f"a whole process that holds {ROWS:,} rows of 15 columns in a Parquet file against the kept profile",
    "drift_memory": "its peak memory",
    "drift_memory_many": f"peak memory for {MANY * ROWS:,} rows, against that",
    "drift_false_alarms": f"of {DRAWS} windows of {WINDOW:,} rows in which nothing drifts, those with any alarm, in percent; the worse of "
    f"references of {REFERENCE:,} and {SMALL:,} rows",
    "drift_detection": f"of {DRAWS} windows of {WINDOW:,} rows with a change in one of 15 columns those in which it is seen, in percent; the "
    "worst of the changes",
    "drift_agreement": "largest difference between the Kolmogorov-Smirnov statistic that the profile's bins come to and that of the rows "
    "themselves by scipy, over columns of numbers; and chi-squared is the same where all names are kept",
    "drift_over_scipy": "time of that process, against two-sample KS and chi-squared of scipy on both tables",
    "drift_over_evidently": "against Evidently's DataDriftPreset",
    "drift_over_nannyml": "against NannyML's univariate KS and chi-squared",
}


# ----------------------------------------------------------------------------------------------- Inside a process


def draw(rows: int, seed: int) -> pd.DataFrame:
    """Rows of one distribution: normal, skewed, tied, with gaps, with few and with many names; and their score."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(seed)
    normal = random.normal(size=rows)
    frame = pd.DataFrame(
        {
            "normal": normal,
            "partner": 0.7 * normal + 0.7 * random.normal(size=rows),
            "flat": random.random(rows),
            "skewed": np.exp(random.normal(size=rows)),
            "mostly zero": np.where(random.random(rows) < 0.9, 0, random.exponential(1, rows).round(2)),
            "count": random.poisson(3, rows).astype("float64"),
            "degrees": random.normal(50, 12, rows).round(),
            "gaps": np.where(random.random(rows) < 0.3, np.nan, random.gamma(2, 2, rows)),
            "heavy": random.standard_t(3, rows),
            "dwindling": random.exponential(3, rows),
            "flag": (random.random(rows) < 0.2).astype("float64"),
        }
    )
    for name, count in NAMES.items():
        share = np.random.default_rng(count).dirichlet(np.full(count, 0.8))
        frame[name] = np.array([f"{name}-{place}" for place in range(count)])[random.choice(count, rows, p=share)]
    frame["score"] = 1 / (1 + np.exp(1 - normal))
    return frame


def write(target: str, rows: str, seed: str) -> None:
    draw(int(rows), int(seed)).to_parquet(target, row_group_size=100_000, index=False)


def contract() -> Any:
    api = importlib.import_module(f"{PACKAGE}.api")
    columns = [api.Column("id", "string", role="id"), api.Column("y", "boolean", role="target")]
    columns += [api.Column(name, "number", nullable=True) for name in NUMBERS]
    columns += [api.Column("flag", "boolean"), *(api.Column(name, "string") for name in NAMES)]
    return api.Contract(tuple(columns))


def profile(rows: pd.DataFrame) -> Any:
    return importlib.import_module(f"{PACKAGE}.core.reference").reference(rows, rows["score"].to_numpy(), contract())


def keep(target: str, source: str) -> None:
    import pandas as pd

    Path(target).write_text(json.dumps(profile(pd.read_parquet(source).head(REFERENCE)), sort_keys=True))


def ours(kept: str, source: str, times: str) -> None:
    import pyarrow.parquet as pq

    drift = importlib.import_module(f"{PACKAGE}.core.drift")
    known = json.loads(Path(kept).read_text())
    window = drift.Window(known)
    for _ in range(int(times)):
        with pq.ParquetFile(source, pre_buffer=False) as file:
            for batch in file.iter_batches(50_000):
                rows = batch.to_pandas()
                window.update(rows, rows["score"].to_numpy())
    found = drift.compare(known, window)
    print(json.dumps({"rows": window.rows, "drifted": found.drifted}))


def scipy(reference: str, source: str) -> None:
    import pandas as pd
    from scipy import stats

    then, now = pd.read_parquet(reference), pd.read_parquet(source)
    for name in NUMBERS:
        stats.ks_2samp(then[name].dropna(), now[name].dropna(), method="asymp")
    for name in ("flag", *NAMES):
        counts = pd.concat([then[name].value_counts(), now[name].value_counts()], axis=1).fillna(0)
        stats.chi2_contingency(counts.to_numpy().T + 0.5)


def evidently(reference: str, source: str) -> None:
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    then, now = pd.read_parquet(reference), pd.read_parquet(source)
    Report([DataDriftPreset()]).run(now, then).dict()


def nannyml(reference: str, source: str) -> None:
    import nannyml as nml
    import pandas as pd

    then, now = pd.read_parquet(reference), pd.read_parquet(source)
    then, now = (frame.astype(dict.fromkeys(("flag", *NAMES), "category")) for frame in (then, now))
    calculator = nml.UnivariateDriftCalculator(
        column_names=[*NUMBERS, "flag", *NAMES],
        continuous_methods=["kolmogorov_smirnov"],
        categorical_methods=["chi2"],
        chunk_number=1,
    )
    calculator.fit(then).calculate(now).to_df()


def changes(
    typical: pd.DataFrame,
) -> Iterator[tuple[str, str, Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]]]:
    """What is changed, in which column, and how."""
    for name in ("normal", "skewed", "count", "degrees", "gaps", "heavy"):
        by = 0.2 * typical[name].std()

        def shifted(rows: pd.DataFrame, _: np.random.Generator, name: str = name, by: float = by) -> pd.DataFrame:
            return rows.assign(**{name: rows[name] + by})

        yield f"0.2 sd of {name}", name, shifted
    for name in NAMES:
        most = typical[name].value_counts().index[1]

        def more(rows: pd.DataFrame, random: np.random.Generator, name: str = name, most: str = most) -> pd.DataFrame:
            chosen = random.permutation((rows[name] != most).to_numpy().nonzero()[0])[: len(rows) // 20]
            values = rows[name].to_numpy(object)
            values[chosen] = most
            return rows.assign(**{name: values.astype("str")})

        yield f"5 points of {name}", name, more
    yield "a unit", "degrees", lambda rows, _: rows.assign(degrees=(rows["degrees"] - 32) / 1.8)
    yield "a name", "ten", lambda rows, _: rows.assign(ten=rows["ten"].str.replace("ten-3", "TEN 3"))
    yield (
        "what goes together",
        "",
        lambda rows, random: rows.assign(partner=random.permutation(rows["partner"].to_numpy())),
    )


def rates(draws: str) -> None:
    """Print the share of windows with any alarm, by rows of the reference, and the share in which each change is seen."""
    import numpy as np

    drift = importlib.import_module(f"{PACKAGE}.core.drift")
    large = draw(REFERENCE, 1)
    known = {str(rows): profile(draw(rows, 1)) for rows in (REFERENCE, SMALL)}

    def look(kept: Any, rows: pd.DataFrame) -> Any:
        window = drift.Window(kept)
        window.update(rows, rows["score"].to_numpy())
        return drift.compare(kept, window)

    seeds = range(10, 10 + int(draws))
    alarms = {
        rows: float(np.mean([look(kept, draw(WINDOW, seed)).drifted for seed in seeds])) for rows, kept in known.items()
    }
    seen = {}
    for what, name, change in changes(large):
        hits = []
        for seed in seeds:
            found = look(known[str(REFERENCE)], change(draw(WINDOW, seed), np.random.default_rng(seed)))
            drifted = found.table.loc[found.table["drifted"], "name"].tolist()
            hits.append(name in drifted if name else found.together.drifted)
        seen[what] = float(np.mean(hits))
    print(json.dumps({"alarms": alarms, "seen": seen}))


# -------------------------------------------------------------------------------------- The same statistics of the same rows


def change(target: str, rows: str, seed: str) -> None:
    """Rows with each change that is one of a column by itself; those without one show what chance makes of a statistic."""
    import numpy as np

    drawn, random, known = draw(int(rows), int(seed)), np.random.default_rng(int(seed)), draw(REFERENCE, 1)
    for what, name, by in changes(known):
        if name and what != "a unit":
            drawn = by(drawn, random)
    drawn.to_parquet(target, row_group_size=100_000, index=False)


def told(found: dict[str, dict[str, float]]) -> None:
    print(json.dumps({name: {key: float(value) for key, value in of.items()} for name, of in found.items()}))


def same_ours(kept: str, source: str) -> None:
    """KS, chi-squared, PSI and the distance of Jensen and Shannon of the profile's bins and names, and how wide a bin is."""
    import numpy as np
    import pandas as pd
    from scipy import stats
    from scipy.spatial.distance import jensenshannon

    drift = importlib.import_module(f"{PACKAGE}.core.drift")
    known, rows = json.loads(Path(kept).read_text()), pd.read_parquet(source)
    window = drift.Window(known)
    window.update(rows, rows["score"].to_numpy())
    lines = drift.compare(known, window).table.set_index("name")
    found = {}
    for name, counts in window.columns.items():
        column, now = counts.column, counts.counts
        then = (
            column["counts"]
            if "counts" in column
            else [*(column["values"][one] for one in counts.names), column["other"]]
        )
        then = np.array(then)
        p, q = then / then.sum(), now / now.sum()
        found[name] = {"psi": lines.loc[name, "psi"], "js": jensenshannon(p, q), "effect": lines.loc[name, "effect"],
                       "drifted": lines.loc[name, "drifted"]}  # fmt: skip
        if "counts" in column:
            found[name] |= {"ks": np.abs(np.cumsum(p) - np.cumsum(q)).max(), "bin": np.maximum(p, q).max()}
        else:
            there = then + now > 0
            found[name]["chi2"] = stats.chi2_contingency([then[there], now[there]], correction=False).statistic
    told(found)


def same_scipy(reference: str, source: str) -> None:
    import pandas as pd
    from scipy import stats

    then, now = pd.read_parquet(reference), pd.read_parquet(source)
    found = {
        name: {"ks": stats.ks_2samp(then[name].dropna(), now[name].dropna(), method="asymp").statistic}
        for name in NUMBERS
    }
    for name in ("flag", *NAMES):
        counts = pd.concat([then[name].value_counts(), now[name].value_counts()], axis=1).fillna(0).to_numpy().T
        found[name] = {"chi2": stats.chi2_contingency(counts, correction=False).statistic}
    told(found)


def same_evidently(reference: str, source: str) -> None:
    import pandas as pd
    from evidently import Report
    from evidently.metrics import ValueDrift

    then, now = pd.read_parquet(reference), pd.read_parquet(source)
    asked = [
        (name, key, method)
        for name in (*NUMBERS, "flag", *NAMES)
        for key, method in (("psi", "psi"), ("js", "jensenshannon"))
    ]
    report = Report([ValueDrift(column=name, method=method) for name, _, method in asked]).run(now, then).dict()
    found: dict[str, dict[str, float]] = {}
    for (name, key, _), metric in zip(asked, report["metrics"], strict=True):
        found.setdefault(name, {})[key] = metric["value"]
    told(found)


def same_nannyml(reference: str, source: str) -> None:
    import nannyml as nml
    import numpy as np
    import pandas as pd

    then, now = pd.read_parquet(reference), pd.read_parquet(source)
    then, now = (frame.astype(dict.fromkeys(("flag", *NAMES), "category")) for frame in (then, now))
    calculator = nml.UnivariateDriftCalculator(
        column_names=[*NUMBERS, "flag", *NAMES],
        continuous_methods=["kolmogorov_smirnov", "jensen_shannon"],
        categorical_methods=["chi2", "jensen_shannon"],
        chunk_number=1,
    )
    table = calculator.fit(then).calculate(now).filter(period="analysis").to_df()
    keys = {"kolmogorov_smirnov": "ks", "jensen_shannon": "js", "chi2": "chi2"}
    found: dict[str, dict[str, float]] = {}
    for name, method, what in table.columns:
        if what == "value" and method in keys:
            unit = np.log(2) ** 0.5 if method == "jensen_shannon" else 1  # theirs has base 2
            found.setdefault(name, {})[keys[method]] = unit * table[name, method, what].iloc[0]
    told(found)


# ------------------------------------------------------------------------------------------------------ The figure


def script(python: str, folder: Path, *words: str) -> tuple[float, str]:
    """Run this file with an interpreter; the seconds, and the last line of JSON that it printed."""
    here = Path(__file__).resolve()
    env = environment(PYTHONPATH=f"{here.parent.parent}:{folder / 'src'}", **SILENT)
    done = call([python, "-P", str(here), *words], folder, env, 7200)
    return done.seconds, ([line for line in done.output.splitlines() if line.startswith("{")] or [""])[-1]


def peak(project: Project, *words: str) -> int:
    """The largest that the process becomes, in bytes."""
    here, report = Path(__file__).resolve(), project.folder / ".cache" / "tree.json"
    report.parent.mkdir(exist_ok=True)
    env = environment(PYTHONPATH=f"{here.parent.parent}:{project.folder / 'src'}")
    call(
        [project.python, str(INSIDE / "tree.py"), str(report), project.python, "-P", str(here), *words],
        project.folder,
        env,
        7200,
    )
    return int(json.loads(report.read_text())["largest_bytes"])


def watching(lab: Lab) -> Project:
    """A project that watches its answers, installed."""
    target = lab.folder / "drift"
    words = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", "--vcs-ref", "HEAD"]
    words += ["--data", "serving=[batch]", "--data", "monitoring=true"]
    call([*words, str(lab.template), str(target)], cwd=lab.folder)
    project = Project(target)
    project.make("setup")
    return project


def installed(lab: Lab, name: str) -> str:
    """An interpreter with that tool.

    Raises:
        RuntimeError: If it cannot be installed.
    """
    folder = lab.folder / f"with-{name}"
    call([sys.executable, "-m", "venv", str(folder)], lab.folder)
    python = str(folder / "bin" / "python")
    call([python, "-m", "pip", "install", "--quiet", "pyarrow", *OTHERS[name]], lab.folder)
    return python


SAME = {"KS": ("ks", "ours", "scipy", "nannyml"), "chi-squared": ("chi2", "ours", "scipy", "nannyml"),
        "PSI": ("psi", "ours", "evidently"), "JS": ("js", "ours", "evidently", "nannyml")}  # fmt: skip
CALLED = {"evidently": "Evidently", "nannyml": "NannyML"}
SAYS = f"""\
All changes of `drift_detection` but one of a unit at once, in {REFERENCE:,} rows beside {REFERENCE:,}; `dwindling`, `flag`, `flat`,
`mostly zero` and `partner` are left as they were. Ours are of the profile's bins and names, scipy's of the rows themselves.

- The KS statistic of bins is never larger than that of the rows, and by less than the largest bin smaller.
- Chi-squared is that of all names as long as the profile names all. Of more than 200 the others count as one, and one half of the
  reference counts what the other half named. NannyML corrects for continuity where there are two names.
- PSI and the distance of Jensen and Shannon (in nats; NannyML's has base 2 and is turned into these) depend on the bins. Those of
  a profile have about as many rows each. Evidently and NannyML cut the range into parts of one width, so that of a column with long tails
  nearly all rows lie in a few of them; and a value that many rows share has a bin of its own with us, so that whole numbers
  that moved by less than one are others to it. With names there are no bins, and all three are the same where the profile names
  all of them; but for names that are new: what stands for their zero in the logarithm of PSI is half a row with us, and another small
  share with Evidently.
"""


def beside(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The table of statistics: for each column what each tool says, empty where it does not say that."""
    heads = [
        f"{what} {CALLED.get(who, who)}"
        for what, (_, *all_of_them) in SAME.items()
        for who in all_of_them
        if who in found
    ]
    lines = ["| column | drifted | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 2) + "|"]
    for name, ours in found["ours"].items():
        values = [
            found[who].get(name, {}).get(key)
            for key, *all_of_them in SAME.values()
            for who in all_of_them
            if who in found
        ]
        cells = ["" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}" for value in values]
        lines.append(f"| {name} | {'yes' if ours['drifted'] else 'no'} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", SAYS])


def agreement(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Row:
    """Whether ours are theirs, as far as bins and names that are kept apart let them."""
    ours, exact = found["ours"], found["scipy"]
    less = {name: exact[name]["ks"] - ours[name]["ks"] for name in NUMBERS}
    within = all(-1e-9 <= by <= ours[name]["bin"] for name, by in less.items())
    alike = [name for name, count in {"flag": 2, **NAMES}.items() if count <= 200]
    same = all(abs(ours[name]["chi2"] / exact[name]["chi2"] - 1) < 1e-6 for name in alike)
    far = max(less.values())
    note = f"chi-squared {'the same' if same else 'NOT the same'} for {', '.join(alike)}; all of them and those of other tools stand below"
    return Row(
        "drift_agreement", round(far, 5), "", None, "0.01 or less", far <= 0.01 and within and same, note, beside(found)
    )


def measure(lab: Lab) -> list[Row]:
    project = watching(lab)
    folder = project.folder
    for words in (
        ("write", "then.parquet", str(REFERENCE), "1"),
        ("write", "now.parquet", str(ROWS), "2"),
        ("keep", "profile.json", "then.parquet"),
    ):
        script(project.python, folder, *words)
    script(project.python, folder, "change", "changed.parquet", str(REFERENCE), "2")
    one, tables = ("ours", "profile.json", "now.parquet", "1"), ("then.parquet", "now.parquet")
    interpreters, troubles = {"scipy": project.python}, {}
    for name in OTHERS:
        try:
            interpreters[name] = installed(lab, name)
        except RuntimeError as error:
            troubles[name] = str(error).splitlines()[-1][:120]
    times: dict[str, list[float]] = {"ours": []}
    for turn in range(REPETITIONS):
        times["ours"].append(script(project.python, folder, *one)[0])
        for name, python in list(interpreters.items()):
            if turn and name == "evidently":
                continue  # once is enough of what takes a minute
            try:
                times.setdefault(name, []).append(script(python, folder, name, *tables)[0])
            except RuntimeError as error:
                troubles[name] = str(error).splitlines()[-1][:120]
                interpreters.pop(name)
    found = [repeated("drift_time", times["ours"], "s", 2.5, "reading, importing and comparing included")]
    once = peak(project, *one)
    found.append(limited("drift_memory", once / 1e6, "MB", 350))
    many = peak(project, *one[:-1], str(MANY))
    found.append(limited("drift_memory_many", many / once, "times", 1.25, note=f"{many / 1e6:,.0f} MB"))
    rated = json.loads(script(project.python, folder, "rates", str(DRAWS))[1])
    alarms = ", ".join(f"{100 * share:g} % beside {int(rows):,}" for rows, share in rated["alarms"].items())
    found.append(limited("drift_false_alarms", 100 * max(rated["alarms"].values()), "%", 5, note=alarms))
    worst = 100 * min(rated["seen"].values())
    note = ", ".join(f"{what} {100 * share:g} %" for what, share in rated["seen"].items())
    found.append(Row("drift_detection", round(worst, 2), "%", None, "95 or more", worst >= 95, note))
    said = {"ours": script(project.python, folder, "same_ours", "profile.json", "changed.parquet")[1]}
    for name, python in interpreters.items():
        said[name] = script(python, folder, f"same_{name}", "then.parquet", "changed.parquet")[1]
    found.append(agreement({name: json.loads(text) for name, text in said.items()}))
    for name in ("scipy", *OTHERS):
        if name in troubles or not times.get(name):
            found.append(
                Row(f"drift_over_{name}", float("nan"), "times", note=f"did not run: {troubles.get(name, '')}")
            )
            continue
        theirs = median(times[name])
        found.append(
            limited(
                f"drift_over_{name}",
                median(times["ours"]) / theirs,
                "times",
                AT_MOST.get(name, 1),
                note=f"theirs {theirs:.1f} s",
            )
        )
    lab.drop("drift")
    return found


if __name__ == "__main__":
    commands = {one.__name__: one for one in (write, keep, ours, scipy, evidently, nannyml, rates, change,
                                             same_ours, same_scipy, same_evidently, same_nannyml)}  # fmt: skip
    commands[sys.argv[1]](*sys.argv[2:])
