"""Which packages the old code needs, by the names that indexes have for them."""

from __future__ import annotations

import posixpath
import re
import sys
import tomllib
from collections.abc import Sequence

from .reading import Repository


def required(repository: Repository) -> dict[str, str]:
    """What lists of packages name, and where: requirements, pyproject.toml, environment.yml, `pip install` in a notebook."""
    found: dict[str, str] = {}
    for name, text in repository.texts.items():
        base = posixpath.basename(name)
        if re.search(r"requirements.*\.txt$|^requirements/.*\.txt$", name):
            _from_lines(text.splitlines(), name, found)
        elif base == "pyproject.toml":
            _from_lines(_dependencies(text), name, found)
        elif re.match(r"environment.*\.ya?ml|conda.*\.ya?ml", base):
            _from_lines(re.findall(r"^\s*-\s+([\w.-]+.*)$", text, re.M), name, found)
    for source in repository.sources:
        for number, line in enumerate(source.lines, start=1):
            told = re.match(r"\s*[%!]\s*(?:pip|conda|uv pip|python -m pip)\s+install\s+(.*)", line)
            if told:
                words = [word.strip("\"'") for word in told[1].split() if not word.startswith("-")]
                _from_lines(words, source.place(number), found)
    return found


def _dependencies(text: str) -> list[str]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return []
    poetry = content.get("tool", {}).get("poetry", {})
    named = [name for name in poetry.get("dependencies", {}) if name != "python"]
    project = content.get("project", {})
    optional = [one for group in project.get("optional-dependencies", {}).values() for one in group]
    return [one for one in (*project.get("dependencies", []), *optional, *named) if isinstance(one, str)]


def _from_lines(lines: Sequence[str], where: str, found: dict[str, str]) -> None:
    for line in lines:
        told = re.match(r"\s*([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*(?:[=<>!~;@ ].*)?$", line.split("#")[0])
        if told and told[1].lower() not in ("pip", "python", "setuptools", "wheel", "defaults", "conda-forge"):
            found.setdefault(distribution(told[1]), where)


def distribution(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


STANDARD = frozenset(sys.stdlib_module_names) | {
    "urllib2",
    "urlparse",
    "ConfigParser",
    "cPickle",
    "cStringIO",
    "StringIO",
    "Queue",
}
OTHER_NAMES = {
    "sklearn": "scikit-learn", "cv2": "opencv-python", "PIL": "pillow", "yaml": "pyyaml", "bs4": "beautifulsoup4",
    "dotenv": "python-dotenv", "skimage": "scikit-image", "imblearn": "imbalanced-learn", "dateutil": "python-dateutil",
    "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient", "Crypto": "pycryptodome", "jwt": "pyjwt", "docx": "python-docx",
    "fitz": "pymupdf", "serial": "pyserial", "git": "gitpython", "attr": "attrs", "skopt": "scikit-optimize", "umap": "umap-learn",
    "OpenSSL": "pyopenssl", "zmq": "pyzmq", "IPython": "ipython", "pandas_profiling": "ydata-profiling", "slugify": "python-slugify",
    "faiss": "faiss-cpu", "magic": "python-magic", "mpl_toolkits": "matplotlib", "pkg_resources": "setuptools",
    "fbprophet": "prophet", "google.cloud.bigquery": "google-cloud-bigquery", "google.cloud.storage": "google-cloud-storage",
    "community": "python-louvain", "category_encoders": "category-encoders", "Levenshtein": "levenshtein", "tensorflow_hub": "tensorflow-hub",
    "sentence_transformers": "sentence-transformers", "feature_engine": "feature-engine", "scikitplot": "scikit-plot", "pylab": "matplotlib",
}  # fmt: skip
"""By name of import, that of the package, where they differ."""
SAME_NAMES = frozenset(
    {"numpy", "pandas", "scipy", "matplotlib", "seaborn", "plotly", "bokeh", "altair", "xgboost", "lightgbm",
     "catboost", "statsmodels", "joblib", "tqdm", "requests", "httpx", "flask", "fastapi", "uvicorn",
     "streamlit", "gradio", "dash", "polars", "pyarrow", "dask", "duckdb", "sqlalchemy", "psycopg", "pymysql",
     "boto3", "s3fs", "fsspec", "openpyxl", "xlrd", "click", "typer", "rich", "pydantic", "torch",
     "torchvision", "tensorflow", "keras", "transformers", "datasets", "spacy", "nltk", "gensim", "shap",
     "lime", "optuna", "hyperopt", "mlflow", "wandb", "prefect", "dagster", "kedro", "luigi", "schedule",
     "hydra", "omegaconf", "prophet", "pmdarima", "sktime", "lifelines", "geopandas", "shapely", "networkx",
     "sympy", "numba", "pytest", "hypothesis", "loguru", "missingno", "sweetviz", "wordcloud", "folium",
     "holidays", "unidecode", "rapidfuzz", "textblob", "emoji", "pyspark", "ray", "mapie", "interpret",
     "eli5", "tabulate", "cloudpickle", "dill", "skops", "onnx", "onnxruntime", "pandera", "evidently",
     "great_expectations"}
)  # fmt: skip
"""Imports that are called as their package is; any other name may belong to somebody else on an index."""


def top(name: str) -> str:
    return ".".join(name.split(".")[: 3 if name.startswith("google.") else 1])  # google is many packages
