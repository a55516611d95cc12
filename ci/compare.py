"""What a new release does to a project of the one before: made, edited and updated for real, then looked at."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import copier
import yaml
from jinja2 import Environment

WHO = ("-c", "user.name=release", "-c", "user.email=release@localhost")
MARK = "# of the user's own, "  # begins a line that is put into files; what is the user's keeps it

Answers = dict[str, Any]


class RenderError(Exception):
    """A project cannot be made with some answers; the text says why."""


@dataclass(frozen=True)
class Looked:
    """A render.

    Attributes:
        yours: Paths of the files that a second render leaves alone; a package is called {package} in them.
        seeds: Paths of the files that an update neither changes nor brings.
        names: What api.py offers.
        answers: The answers it was made with, as they were kept.
    """

    yours: frozenset[str] = frozenset()
    seeds: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    answers: Answers = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------- Questions


def settings_of(clone: Path, ref: str) -> dict[str, Any]:
    """copier.yml of a release."""
    shown = subprocess.run(["git", "show", f"{ref}:copier.yml"], cwd=clone, check=True, capture_output=True, text=True)
    settings: dict[str, Any] = yaml.safe_load(shown.stdout)
    return settings


def questions(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is asked, by name; computed values are left out."""
    asked = {name: one if isinstance(one, dict) else {"default": one} for name, one in settings.items()}
    return {name: one for name, one in asked.items() if not name.startswith("_") and one.get("when") is not False}


def values(question: dict[str, Any]) -> list[Any]:
    """Answers to a question other than its default; for a text, one that is no default.

    Where several may be chosen: each alone, and all of them.
    """
    default, choices = question.get("default"), question.get("choices")
    if isinstance(choices, dict):
        choices = list(choices.values())
    if isinstance(choices, list):
        plain = [one[1] if isinstance(one, list) else one for one in choices]
        found = [one["value"] if isinstance(one, dict) else one for one in plain]
        if question.get("multiselect"):
            found = [*([one] for one in found), *([found] if len(found) > 1 else [])]
        return [one for one in found if one != default]
    if question.get("type") == "bool" or isinstance(default, bool):
        return [not default]
    if isinstance(default, str) and "{" not in default and question.get("type", "str") == "str":
        return [f"{default}x"]
    return [default + 1] if isinstance(default, int | float) else []


def sets(clone: Path, ref: str, place: Path) -> list[Answers]:
    """Answers to try: the defaults, each other choice alone, and everything other than its default."""
    asked = questions(settings_of(clone, ref))
    other = {name: values(one) for name, one in asked.items()}
    texts = {name: found[0] for name, found in other.items() if found and not _chosen(asked[name])}
    accepted = texts
    if not _renders(clone, ref, texts, place):
        accepted = {name: value for name, value in texts.items() if _renders(clone, ref, {name: value}, place)}
    alone = [
        {name: value}
        for name, found in other.items()
        if _chosen(asked[name])
        for value in found
        if not asked[name].get("multiselect") or _renders(clone, ref, {name: value}, place)  # one may need another
    ]
    every = {name: found[-1] for name, found in other.items() if found and _chosen(asked[name])} | accepted
    return [{}, *alone, *([every] if every not in [{}, *alone] else [])]


def _chosen(question: dict[str, Any]) -> bool:
    return "choices" in question or question.get("type") == "bool" or isinstance(question.get("default"), bool)


def _renders(clone: Path, ref: str, answers: Answers, project: Path) -> bool:
    try:
        _made(clone, ref, answers, project, pretend=True)
    except RenderError:  # its validator wants something else
        return False
    return True


def _of_defaults(
    old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]], before: str, version: str, steps: bool
) -> list[str]:
    """Questions whose default is another one, where nothing is done about it."""
    return [
        f"question {name} had the default {one.get('default')!r} in {before} and has {new[name].get('default')!r} now: "
        f"projects would change that did not ask for it. Keep the default, or give {version} steps in hooks/migrate.py"
        for name, one in old.items()
        if name in new and one.get("default") != new[name].get("default") and not steps
    ]


def _of_options(clone: Path, tag: str, settings: dict[str, Any], place: Path) -> tuple[list[str], Looked]:
    """Starred files and seeds that come and go with an answer: to switch it off would delete what the user wrote."""
    found, default = [], Looked()
    for count, answers in enumerate(sets(clone, tag, place / "try-new")):
        try:
            looked = look(clone, tag, answers, place / f"new-{count}", settings)
        except RenderError as error:
            return [f"it cannot be rendered with {said(answers)}: {error}"], default
        default = looked if not answers else default
        found += [
            f"{path} is the user's, and whether it is there depends on {said(answers)}: to answer otherwise would delete "
            f"it with all edits. Render it in either case, or make it ours"
            for path in sorted((looked.yours | looked.seeds) ^ (default.yours | default.seeds))
        ]
    return found, default


def said(answers: Answers) -> str:
    """Answers as people read them."""
    return ", ".join(f"{name}={value}" for name, value in answers.items()) or "the defaults"


# -------------------------------------------------------------------------------------------------------- Renders


def files(project: Path) -> Iterator[Path]:
    """The files of a project, but those of git and of byte code."""
    for path in sorted(project.rglob("*")):
        if path.is_file() and ".git" not in path.parts and "__pycache__" not in path.parts:
            yield path


def named(project: Path, path: Path) -> str:
    """A path as it is in any project."""
    return re.sub(r"^src/[^/]+/", "src/{package}/", path.relative_to(project).as_posix())


def look(clone: Path, tag: str, answers: Answers, project: Path, settings: dict[str, Any]) -> Looked:
    """Render, mark every file, render over it: what still has its mark is the user's."""
    _made(clone, tag, answers, project)
    every = list(files(project))
    kept = answers_of(project)
    for path in every:
        mark(project, path)
    _made(clone, tag, kept, project, overwrite=True)
    return Looked(
        frozenset(named(project, path) for path in every if MARK.encode() in path.read_bytes()),
        frozenset(named(project, path) for path in every if _seed(settings, path.relative_to(project))),
        frozenset(api(project)),
        kept,
    )


def mark(project: Path, path: Path) -> None:
    """A line of the user's."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{MARK}{named(project, path)}\n")


def answers_of(project: Path) -> Answers:
    """What was answered, without Copier's own notes."""
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text(encoding="utf-8"))
    return {key: value for key, value in answers.items() if not key.startswith("_")}


def _seed(settings: dict[str, Any], path: Path) -> bool:
    patterns = [
        Environment(autoescape=False).from_string(one).render(_copier_operation="update")
        for one in settings.get("_exclude", [])
        if "_copier_operation" in one
    ]
    return any(path.is_relative_to(line) for one in patterns for line in one.split() if line)


def api(project: Path) -> set[str]:
    """The names that the user's files may import: of api.py before 2.0, then of copier_mlops.

    They are those of `__all__`, or all that do not begin with a line.
    """
    names: set[str] = set()
    for path in [*project.glob("src/*/api.py"), *project.glob("src/copier_mlops/__init__.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                return set(ast.literal_eval(node.value))
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            names |= {one.asname or one.name for one in getattr(node, "names", [])}
            names |= {one.id for one in getattr(node, "targets", []) if isinstance(one, ast.Name)}
    return {name for name in names if not name.startswith("_")}


# -------------------------------------------------------------------------------------------------------- Updates


def _git(project: Path, *words: str) -> str:
    done = subprocess.run(["git", *WHO, *words], cwd=project, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _made(clone: Path, ref: str, answers: Answers, project: Path, **more: Any) -> None:
    try:
        copier.run_copy(str(clone), project, data=answers, defaults=True, quiet=True, vcs_ref=ref, **more)
    except Exception as error:  # a template can make Jinja and Copier raise anything
        raise RenderError(f"{type(error).__name__}: {error}") from error


def _committed(project: Path) -> None:
    _git(project, "init", "--quiet")
    _git(project, "add", "--all", "--force")
    _git(project, "commit", "--quiet", "--message", "as the user has it")


def tried(clone: Path, before: str, version: str, project: Path) -> tuple[list[str], bool]:
    """What is wrong with the steps of a release: a plan that writes, a second run that changes more. Whether it has any."""
    from release import steps_of

    if version not in steps_of(clone):
        return [], False
    _made(clone, f"v{before}", {}, project)
    _committed(project)

    def state() -> tuple[str, dict[Path, bytes]]:
        return _git(project, "write-tree"), {path: path.read_bytes() for path in files(project)}

    states = [state()]
    for more in (["--plan"], [], []):
        words = [sys.executable, str(clone / "hooks/migrate.py"), version, *more, str(project)]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            failed = done.stderr.strip().removeprefix("error: ")
            return [f"the steps of {version} fail on a project of {before} as it was made: {failed}"], True
        states.append(state())
    found = []
    if states[0] != states[1]:
        found.append(f"the plan of the steps of {version} changes the project: it has to say what it would do, no more")
    if states[2] != states[3]:
        found.append(f"the steps of {version} change more when they run again: each has to leave alone what is done")
    return found, True


@dataclass(frozen=True)
class Update:
    """From the release before to this one, for a user who edited everything that is theirs.

    Attributes:
        clone: The template, both releases tagged.
        before: The version before.
        version: The version to be.
        major: Whether it is a major one.
        notes: What the changelog says of it.
        old: A render of the release before.
        new: A render of this one.
    """

    clone: Path
    before: str
    version: str
    major: bool
    notes: str
    old: Looked
    new: Looked

    def problems(self, answers: Answers, project: Path) -> list[str]:
        """What is lost by an update of a project that was made with these answers."""
        _made(self.clone, f"v{self.before}", answers, project)
        given = answers_of(project)
        gone = sorted(self.old.names - self.new.names)
        for path in [path for path in files(project) if named(project, path) in self.old.yours]:
            mark(project, path)
            if path.suffix == ".py":
                path.write_text(path.read_text() + "".join(f"from ..api import {name}\n" for name in gone))
        _committed(project)
        words = ["update", "--vcs-ref", f"v{self.version}", "--defaults", "--quiet", "--trust", str(project)]
        done = subprocess.run([sys.executable, "-m", "copier", *words], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            why = done.stderr.strip().splitlines()
            return [f"a project of {self.before} with {said(answers)} cannot be updated: {' '.join(why[-3:])}"]
        return [*self._files(project), *self._names(project, gone), *self._answers(given, answers_of(project))]

    def _files(self, project: Path) -> Iterator[str]:
        kept = {
            match: named(project, path)
            for path in files(project)
            for match in re.findall(rf"^{MARK}(.*)$", path.read_text(encoding="utf-8", errors="replace"), re.M)
        }
        for path in sorted(self.old.yours):
            now = kept.get(path)
            if now is None:
                yield (
                    f"{path} is the user's in {self.before}, and what they wrote there is gone after an update to "
                    f"{self.version}: keep the file, or release a major version whose steps in hooks/migrate.py move it"
                )
            elif now not in self.new.yours:
                yield f"{now} is the user's in {self.before}, and no longer in {self.version}: put it into _skip_if_exists of copier.yml"
            elif now != path and not self.major:
                yield f"{path} moves to {now}: a path of the user's moves with a major release only"
            elif now != path and now.rpartition("/")[2] not in self.notes:
                yield f"CHANGELOG.md does not say that {path} moves to {now}: write it under '### Which of your files move'"

    def _names(self, project: Path, gone: list[str]) -> Iterator[str]:
        texts = [
            path.read_text()
            for path in files(project)
            if named(project, path) in self.new.yours and path.suffix == ".py"
        ]
        for name in gone:
            if not self.major or any(re.search(rf"\b{name}\b", text) for text in texts):
                yield (
                    f"{name} is gone from api.py, and files of the user's may import it: keep it, or release a major "
                    f"version whose steps in hooks/migrate.py replace it in each of them"
                )

    def _answers(self, given: Answers, after: Answers) -> Iterator[str]:
        for name, value in given.items():
            if name in after and after[name] != value:
                yield (
                    f"question {name} was answered {value!r} in {self.before} and is answered {after[name]!r} after an "
                    f"update to {self.version}: keep that answer a valid one"
                )
            if name not in after and value not in [after[one] for one in after.keys() - given.keys()]:
                yield (
                    f"question {name} of {self.before} is gone, and no other has its answer {value!r}: keep it, or give "
                    f"{self.version} steps in hooks/migrate.py that rename the answer"
                )


# ---------------------------------------------------------------------------------------------------- Altogether


def problems(clone: Path, before: str, version: str, kinds: dict[str, str], notes: str, place: Path) -> list[str]:
    """What is in the way of a release that stands tagged in a clone; `before` is empty for the first."""
    settings = settings_of(clone, f"v{version}")
    found, new = _of_options(clone, f"v{version}", settings, place)
    if not before or found:
        return found
    settings_before = settings_of(clone, f"v{before}")
    old = look(clone, f"v{before}", {}, place / "old", settings_before)
    was, is_now = questions(settings_before), questions(settings)
    changed, steps = tried(clone, before, version, place / "steps")
    found += changed + _of_defaults(was, is_now, before, version, steps)
    found += _of_size(old, new, version, kinds)
    update = Update(clone, before, version, kinds.get("major") == version, notes, old, new)
    for count, answers in enumerate(sets(clone, f"v{before}", place / "try")):
        if len(answers) == 1 and all(was.get(name) == is_now.get(name) for name in answers):
            continue  # a choice alone matters where the question is another one
        found += [line for line in update.problems(answers, place / f"project-{count}") if line not in found]
    return found


def _of_size(old: Looked, new: Looked, version: str, kinds: dict[str, str]) -> list[str]:
    """A patch that brings something."""
    things = [
        *sorted(new.yours - old.yours),
        *(f"{name} of api.py" for name in sorted(new.names - old.names)),
        *(f"question {name}" for name in sorted(new.answers.keys() - old.answers.keys())),
    ]
    if version != kinds["patch"] or not things:
        return []
    return [f"{version} is a patch, and {', '.join(things)} is new: that is a minor release, {kinds['minor']}"]
