"""Name the packages of the old code as package indexes do, each of them once."""

import ast
import re
import sys
import tomllib
from collections.abc import Collection
from pathlib import PurePosixPath

from .reading import Repository

NAMES = {
    "sklearn": "scikit-learn sklearn", "cv2": "opencv-python opencv-python-headless opencv-contrib-python",
    "PIL": "pillow", "yaml": "pyyaml", "bs4": "beautifulsoup4", "dotenv": "python-dotenv", "skimage": "scikit-image",
    "git": "gitpython", "imblearn": "imbalanced-learn", "dateutil": "python-dateutil",
    "psycopg2": "psycopg2-binary psycopg2", "attr": "attrs", "MySQLdb": "mysqlclient", "Crypto": "pycryptodome",
    "jwt": "pyjwt", "docx": "python-docx", "fitz": "pymupdf", "serial": "pyserial", "skopt": "scikit-optimize",
    "umap": "umap-learn", "OpenSSL": "pyopenssl", "zmq": "pyzmq", "pandas_profiling": "ydata-profiling",
    "slugify": "python-slugify", "faiss": "faiss-cpu faiss-gpu", "pylab": "matplotlib", "magic": "python-magic",
    "mpl_toolkits": "matplotlib", "pkg_resources": "setuptools", "fbprophet": "prophet", "community": "python-louvain",
    "scikitplot": "scikit-plot", "tensorflow": "tensorflow tensorflow-cpu tensorflow-gpu",
}  # fmt: skip
"""By name of import those of the package, the usual one first, where they differ."""
NOT_INSTALLED = {"pip", "python", "setuptools", "wheel", "defaults", "conda-forge", "conda", "nodefaults"}
STANDARD = {*sys.stdlib_module_names, "urllib2", "urlparse", "ConfigParser", "cPickle", "StringIO", "Queue", ""}


def distribution(name: str) -> str:
    """Return the name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(repository: Repository, listed: Collection[str]) -> set[str]:
    """Return the packages that the code imports, without Python's and the repository's own modules."""
    names: set[str] = set()
    for node in (node for source in repository.sources for node in source.nodes):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    files = {PurePosixPath(source.file) for source in repository.sources}
    own = {part for file in files for part in file.parent.parts} | {file.stem for file in files}
    tops = {"-".join(name.split(".")[: 3 if name.startswith("google.cloud") else 1]) for name in names}
    choices = [NAMES.get(top, top).split() for top in tops - own - STANDARD]
    return {distribution(next((name for name in names if name in listed), names[0])) for names in choices}


def listed(repository: Repository) -> set[str]:
    """Return the packages in requirements, pyproject.toml, environment.yml, and `pip install` of notebooks."""
    lines: list[str] = []
    for name, text in repository.texts.items():
        if re.search(r"requirements[^/]*\.txt$|(?:^|/)requirements/[^/]*\.txt$", name):
            lines += text.splitlines()
        elif name == "pyproject.toml":
            lines += _dependencies(text)
        elif re.search(r"(?:^|/)(?:environment|conda)[^/]*\.ya?ml$", name):
            lines += re.findall(r"^\s*-\s+([\w.-]+.*)$", text, re.M)
    for line in (line for source in repository.sources if source.cell for line in source.lines):
        match = re.match(r"\s*[%!]\s*(?:uv pip|python -m pip|pip3?|conda)\s+install\s+([^#]*)", line)
        lines += [word.strip("\"'") for word in match[1].split() if not word.startswith("-")] if match else []
    pattern = re.compile(r"\s*([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*(?:[=<>!~;@ ].*)?$")
    matches = [pattern.match(line.split("#")[0]) for line in lines]
    return {distribution(match[1]) for match in matches if match} - NOT_INSTALLED


def _dependencies(text: str) -> list[str]:
    try:
        content = tomllib.loads(text)
        project, poetry = content.get("project", {}), content.get("tool", {}).get("poetry", {})
        return list(map(str, [*project.get("dependencies", []), *poetry.get("dependencies", {})]))
    except (tomllib.TOMLDecodeError, AttributeError, TypeError, RecursionError):
        return []
