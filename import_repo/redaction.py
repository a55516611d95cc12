"""Find secrets and paths of one machine, and keep both out of everything that is written or printed."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from .reading import Repository

MAX_LINE = 4_000  # characters of a line that are searched
_NAMES = r"passw(?:or)?d|passphrase|pwd|secret|token|(?:api|access|private|account|sas)_?key|credential"
SECRET_LINE = re.compile(
    rf"""(?ix) (?<![a-z]) [\w.-]{{0,60}} (?:{_NAMES}) \w{{0,60}} ["']? \]? \s* (?: :\s*\w+\s*(?==) )?
    (?: (?:==?|:|!=) | ,(?=\s*["']) ) \s* (?: [bruf]{{0,2}}(?P<quote>["']+)(?P<text>(?:(?!(?P=quote)).){{4,}})
    | (?P<word>[^\s"'#,;)}}\]]{{4,}}) )"""
)
SECRET_VALUE = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"']{0,200}:(?P<password>[^\s/@\"']+)@|(?P<key>AKIA[0-9A-Z]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{15,}|sk-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|hf_[A-Za-z0-9]{20,}|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY-----)"
)
NOT_SECRET = re.compile(r"^(?:os\.|getpass|input\(|(?:None|null|true|false)$|[$<{]|your|changeme|xxx|\*{3})", re.I)
MACHINE_PATH = re.compile(
    r"(?<![\w.:/<~])(?:/(?:home|Users|mnt|media|data|opt|srv|tmp|var|content|kaggle|dbfs|root|scratch|Volumes"
    r"|usr/local|nfs|workspace)(?:/[^\s\"'`,;:)\]}]+)+|~/[^\s\"'`,;:)\]}]+|\b[A-Za-z]:[\\/][^\s\"'`,;)\]}]+"
    r"|\\\\\\\\[\w.-]+\\[^\s\"'`,;)\]}]+)"
)
STRING = re.compile(r"(?P<quote>\"\"\"|'''|\"|')(?P<text>(?:\\.|(?!(?P=quote)).)*)(?:(?P=quote)|$)|(?P<comment>#.*)")


@dataclass
class Redaction:
    """Kinds of secrets by location, locations of paths of one machine, and the values that must appear nowhere."""

    secrets: dict[str, str] = field(default_factory=dict)
    paths: dict[str, None] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)

    def clean(self, text: str) -> str:
        """Return a text on one line, encodable, without secrets and paths of one machine."""
        text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).encode("utf-8", "replace").decode()
        for value in sorted(self.values, key=len, reverse=True) if len(text) > 3 else ():
            text = text.replace(value, "...")
        return SECRET_VALUE.sub("...", MACHINE_PATH.sub("...", text))

    def code(self, text: str) -> str:
        """Return a clean text as inline code of Markdown."""
        text = self.clean(text) or " "
        ticks = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
        return f"{ticks}{text}{ticks}" if len(ticks) == 1 else f"{ticks} {text} {ticks}"

    def quote(self, line: str, shown: Collection[str]) -> str:
        """Return a line of code as Markdown. A text in quotation marks is masked unless it is in `shown`, or short."""

        def visible(match: re.Match[str]) -> str:
            text, quote = match["text"], match["quote"]
            return "" if match["comment"] else quote + (text if text in shown or len(text) < 4 else "...") + quote

        text = STRING.sub(visible, line.strip()[:MAX_LINE]).rstrip()
        return self.code(text if len(text) <= 100 else f"{text[:97]}...")

    def scan(self, line: str, location: str, is_code: bool) -> None:
        """Scan one line. In code a value is in quotation marks or a number; another word is a name."""
        for match in SECRET_VALUE.finditer(line := line[:MAX_LINE]):
            kind = "an address with a password" if match["password"] else "a key of a known format"
            self._add(match["password"] or match["key"], location, kind)
        for match in SECRET_LINE.finditer(line):
            word = match["word"] or ""
            if match["text"] or word.isdigit() or not (is_code or "(" in word):
                self._add(match["text"] or word, location, "a password or a key")
        for match in MACHINE_PATH.finditer(line):
            self.values.add(match[0])
            self.paths[location] = None

    def _add(self, value: str, location: str, kind: str) -> None:
        if len(value) >= 4 and not NOT_SECRET.match(value):
            self.secrets.setdefault(location, kind)
            self.values.add(value)


def scan(repository: Repository) -> Redaction:
    """Find the secrets and the paths of one machine in code and in files of settings."""
    result = Redaction()
    for source in repository.sources:
        for number, line in enumerate(source.lines, start=1):
            result.scan(line, source.location(number), is_code=not line.lstrip().startswith(("%", "!")))
    for file, text in repository.texts.items():
        for number, line in enumerate(text.splitlines(), start=1):
            result.scan(line, f"{file}, line {number}", is_code=False)
    return result
