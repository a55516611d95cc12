"""What a piece of code does, read off the calls in it, and where that belongs in a project of this template."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from .reading import Repository, Source

ROOMS: Mapping[str, tuple[str, str, str]] = {
    "imports": ("imports", "not needed", "each file that you write imports what it uses"),
    "tests": ("tests", "`tests/`", "beside the room that the tested code moves to; `make test` counts them"),
    "serves": ("answers requests", "a module of your own", "it scores through `io/bundle.py`; for a file of rows `make predict` is enough (`stages/predict.py`)"),
    "tracks": ("records runs", "not needed: `flows/train.py`", "each run is recorded, with metrics, plots and model (`io/registry.py`); `make ui` shows them"),
    "schedules": ("runs on a schedule", "not needed: `flows/train.py`", "retries and the schedule are there; its time is in `prefect.yaml`"),
    "searches": ("searches hyperparameters", "`core/model.py`, `search_space`", "what may be tried; the search itself is the platform's (`core/search.py`)"),
    "splits": ("splits rows", "not needed: `stages/split.py`", "`split` in `params.yaml` says how: the newest days, or a share of each class"),
    "shows quality": ("plots how good the model is", "not needed: `core/report.py`", "such plots are in `reports/report.html`"),
    "plots": ("plots", "`notebooks/`", "`notebooks/explore.ipynb` reads the validated rows"),
    "evaluates": ("evaluates", "not needed: `stages/evaluate.py`", "metrics with intervals (`core/metrics.py`); limits are `gate` in `params.yaml`"),
    "explains": ("explains the model", "not needed: `stages/evaluate.py`", "importance is in the report; what goes beyond it: `notebooks/`"),
    "saves a model": ("saves the model", "not needed: `io/bundle.py`", "the bundle keeps the model with the code that it was trained with"),
    "loads a model": ("loads a model", "not needed: `io/bundle.py`", "`make predict` scores with the champion"),
    "saves": ("saves a table or a result", "`pipelines/<name>/dvc.yaml`", "a stage of your own, if nothing of the platform's writes it: rows, scores and reports it does (`dvc.yaml`)"),
    "defines": ("defines the model", "`core/model.py`, `build_model`", "an estimator with `fit` and `predict`"),
    "fits": ("fits the model", "not needed: `stages/train.py`", "it fits what `build_model` returns"),
    "predicts": ("answers rows", "not needed: `stages/evaluate.py`", "for the test rows; `make predict` answers new ones (`stages/predict.py`)"),
    "learns inputs": ("learns inputs from many rows", "`core/model.py`, `build_model`", "a step of its pipeline, so that it is learnt from the training rows alone"),
    "downloads": ("fetches from elsewhere", "`io/source.py`", "`make adopt` can name `s3://` and databases; what takes longer is a target in `local.mk` that writes the table"),
    "reads": ("reads data", "`io/source.py`", "`make adopt` writes it for one table; more tables: join them there, in `read`"),
    "joins": ("joins tables", "`io/source.py`, `read`", "the contract describes the row after the joins; give each new column a line in `core/schema.py`"),
    "gathers": ("computes over several rows", "`io/source.py`, `read`", "only what was known at the time of the row; where that takes long, a target in `local.mk` that writes the table"),
    "makes the target": ("computes the target", "`io/source.py`, `read`", "so that new rows come with it"),
    "names the target": ("names the target and the inputs", "`core/schema.py`", "`make adopt TARGET=...` writes it; a column without a line there is no input"),
    "features": ("builds features", "`core/features.py`, `build_features`", "row by row, as `numbers[...] = ...`"),
    "cleans": ("cleans", "`core/schema.py`", "as rules (kind, `nullable`, `minimum`, `allowed`): rows that break them are set aside; what changes a value goes to `read` of `io/source.py`"),
    "chooses rows": ("chooses rows", "`io/source.py`, `read`", "or a rule in `core/schema.py`, where rows that break it are errors"),
    "configures": ("configures", "`params.yaml`", "what to learn; where things are: `.env`; lists of columns: `core/schema.py`"),
    "reads the environment": ("reads the environment", "`.env`", "`settings.py` has the names"),
    "takes arguments": ("takes arguments", "not needed: `cli.py`", "`make` lists the commands, values are in `params.yaml`; a command of your own: `local.mk`"),
    "sets up": ("sets up the session", "not needed", "the seed is in `params.yaml`, logging and folders are the platform's; manners of plots stay in `notebooks/`"),
    "runs in order": ("calls the steps", "not needed: `dvc.yaml`", "the order of the stages is there"),
    "shows": ("shows", "`notebooks/`", "to look at the data; the report shows the rest"),
    "explained": ("tells in words", "`README.md`", ""),
    "helps": ("helps", "the room of what calls it", ""),
    "": ("look yourself", "no line says what it is for", ""),
    "-": ("look yourself", "no line says what it is for", ""),
}  # fmt: skip
"""By purpose: what to call it, the room, and how it goes in there."""

SCORES = "accuracy|balanced_accuracy|precision|recall|f1|fbeta|roc_auc|average_precision|brier|r2|log|jaccard|silhouette|matthews"
MODELS = (
    r"(?:\w*(?:Classifier|Regressor|Regression|RegressionCV|Ridge|RidgeCV|Lasso|LassoCV|ElasticNet|ElasticNetCV|ClassifierCV)"
    r"|(?:Linear|Nu)?SV[CR]|\w+NB|KMeans|MiniBatchKMeans|DBSCAN|IsolationForest|GaussianMixture|Perceptron|Prophet|ARIMA"
    r"|SARIMAX|OLS|Logit|GLM|LinearDiscriminantAnalysis|QuadraticDiscriminantAnalysis|Sequential|CoxPHFitter)"
)
READ = (
    r"(?:^|\.)(?:read|scan)_(?:csv|table|parquet|excel|json|ndjson|sql|sql_query|sql_table|feather|pickle|hdf|orc|stata|spss|sas"
    r"|fwf|html|xml|gbq|ipc|avro|database|delta|clipboard)$"
)
SIGNS: tuple[tuple[str, str], ...] = (
    ("serves", r"^(?:flask|fastapi|streamlit|dash|bentoml|gradio|bottle|tornado|sanic|django|starlette|uvicorn|litserve|falcon)\b"),
    ("tracks", r"^(?:mlflow|wandb|neptune|comet_ml|clearml|dvclive|aim)\b"),
    ("schedules", r"^(?:airflow|prefect|dagster|luigi|kedro|schedule|apscheduler|celery|metaflow|zenml)\b"),
    ("searches", r"(?:GridSearchCV|RandomizedSearchCV|HalvingRandomSearchCV|BayesSearchCV|ParameterGrid|ParameterSampler)$|^(?:optuna|hyperopt|skopt)\b|(?:^|\.)suggest_(?:int|float|categorical|uniform|loguniform|discrete_uniform)$"),
    ("splits", r"(?:^|\.)train_test_split$|(?:^|\.)\w*(?:KFold|ShuffleSplit|TimeSeriesSplit|PredefinedSplit|LeaveOneOut)$"),
    ("shows quality", r"(?:RocCurve|PrecisionRecall|DetCurve|ConfusionMatrix|Calibration|PredictionError|LearningCurve)Display\b|(?:^|\.)(?:roc_curve|precision_recall_curve|calibration_curve|plot_(?:confusion_matrix|roc\w*|precision\w*)|confusion_matrix)$|^(?:scikitplot|yellowbrick)\b"),
    ("explains", r"^(?:shap|lime|eli5|dalex|interpret)\b|(?:^|\.)(?:permutation_importance|plot_importance|partial_dependence|plot_tree|PartialDependenceDisplay\.\w+)$"),
    ("evaluates", rf"^sklearn\.metrics\b|(?:^|\.)(?:{SCORES})_score$|(?:^|\.)(?:mean_\w+_error|median_absolute_error|root_mean_\w+|classification_report|log_loss|brier_score_loss|cross_val_(?:score|predict)|cross_validate|learning_curve|validation_curve)$|(?:{MODELS}|Pipeline|make_pipeline|SearchCV)\(\)\.score$|^(?:clf|model|pipe|pipeline|grid|search|reg\w*|rf|xgb|lgbm?)\.score$"),
    ("plots", r"^(?:matplotlib|seaborn|plotly|bokeh|altair|plotnine|ydata_profiling|pandas_profiling|sweetviz|missingno|folium|wordcloud|holoviews)\b|(?:^|\.)(?:hist|boxplot|savefig|scatter_matrix|set_(?:title|xlabel|ylabel)|subplots)$|\.plot(?:\.\w+)?$"),
    ("saves a model", r"^(?:joblib|pickle|cloudpickle|dill|torch|skops\.io)\.(?:dump|dumps|save)$|\.(?:save_model|save_weights|to_onnx)$|Sequential\(\)\.save$|^(?:model|clf|pipe|net)\.save$|^skl2onnx\b"),
    ("loads a model", r"^(?:joblib|pickle|cloudpickle|dill|torch|skops\.io)\.(?:load|loads)$|(?:^|\.)load_model$|^onnxruntime\b"),
    ("reads", READ + r"|^(?:numpy)\.(?:load|loadtxt|genfromtxt)$|^sklearn\.datasets\.\w+|^seaborn\.load_dataset$|^csv\.(?:reader|DictReader)$|^(?:sqlite3|psycopg2?|duckdb|pymysql|pyodbc|cx_Oracle|oracledb|snowflake\.connector|MySQLdb)\.connect$|(?:^|\.)create_engine$|^datasets\.load_dataset$|^duckdb\.(?:sql|query)$|^(?:spark|SparkSession)\b.*\.(?:csv|parquet|table|load|sql)$|^pyspark\b"),
    ("downloads", r"^(?:requests|urllib|urllib2|httpx|boto3|wget|kaggle|kagglehub|gdown|opendatasets|ftplib|paramiko|google\.cloud|azure|s3fs|gcsfs)\b"),
    ("saves", r"\.to_(?:csv|parquet|excel|sql|pickle|feather|json|hdf|gbq|html|stata)$|^(?:json|yaml)\.(?:dump|safe_dump)$|^numpy\.(?:save|savez|savetxt)$|(?:^|\.)write_(?:csv|parquet|text|bytes)$"),
    ("fits", rf"\.(?:fit|partial_fit)$|^(?:xgboost|lightgbm|catboost)\.(?:train|cv)$|\.(?:backward|train_step|train_on_batch)$|^{MODELS}\(\)\.train$"),
    ("predicts", r"\.(?:predict|predict_proba|predict_log_proba|decision_function|forecast)$"),
    ("defines", rf"(?:^|\.){MODELS}$|^sklearn\.(?:pipeline|compose)\b|(?:^|\.)(?:make_pipeline|Pipeline|ColumnTransformer|make_column_transformer|FeatureUnion)$|^(?:torch\.nn|keras|tensorflow|statsmodels)\b|^(?:xgboost|lightgbm|catboost)\.(?:DMatrix|Dataset|Pool)$"),
    ("learns inputs", r"(?:^|\.)(?:\w*(?:Scaler|Encoder|Imputer|Vectorizer|Binarizer|Discretizer|Normalizer|OverSampler|UnderSampler)|SMOTE\w*|PCA|TruncatedSVD|SelectKBest|SelectFromModel|RFE|RFECV|PolynomialFeatures|PowerTransformer|QuantileTransformer|VarianceThreshold|get_dummies|factorize|qcut)$|\.(?:fit_transform|fit_resample)$"),
    ("joins", r"^(?!os\.path|str\b|\?|sep\b|thread|proc).*\.(?:merge|merge_asof|merge_ordered|join)$|^pandas\.(?:merge|merge_asof|concat|merge_ordered)$"),
    ("gathers", r"\.(?:groupby|group_by|pivot|pivot_table|rolling|shift|expanding|resample|cumsum|cumcount|cummax|diff|pct_change|ewm|rank|crosstab)\b|^pandas\.(?:pivot_table|crosstab)$"),
    ("takes arguments", r"^(?:argparse|click|typer|optparse|fire|hydra|docopt|absl)\b|\.(?:add_argument|parse_args|parse_known_args)$|^sys\.argv$"),
    ("reads the environment", r"^os\.(?:getenv|environ)\b|^(?:dotenv|decouple|environs)\b|(?:^|\.)load_dotenv$|^getpass\b"),
    ("sets up", r"^(?:warnings|logging|loguru|sys\.path|tqdm|IPython)\b|^(?:pandas|numpy)\.set_(?:option|printoptions)$|(?:^|\.)(?:seed|set_seed|manual_seed|makedirs|mkdir|basicConfig|chdir|tight_layout)$|^matplotlib\.(?:pyplot\.(?:style|rcParams)|use|rcParams)|^seaborn\.set\w*$|^pandas\.options\b"),
    ("cleans", r"\.(?:dropna|drop_duplicates|fillna|ffill|bfill|interpolate|astype|replace|rename|clip|drop|strip|reset_index|set_index|convert_dtypes|title|lower|upper|drop_nulls|fill_null)$|^pandas\.(?:to_numeric|to_datetime)$"),
    ("features", r"\.(?:assign|apply|map|applymap|with_columns|extract|split)$|(?:^|\.)(?:cut|digitize)$|\.dt\.\w+$|^numpy\.(?:log\w*|sqrt|where|select|exp|sin|cos)$"),
)  # fmt: skip
"""By purpose, most telling first, how the names of its calls look; aliases are written out, `df` is not."""
COMPILED = tuple((purpose, re.compile(pattern)) for purpose, pattern in SIGNS)
DEFINES = dict(COMPILED)["defines"]

USUAL = {
    "pd": "pandas", "np": "numpy", "plt": "matplotlib.pyplot", "sns": "seaborn", "xgb": "xgboost", "lgb": "lightgbm",
    "tf": "tensorflow", "px": "plotly.express", "sm": "statsmodels.api", "nn": "torch.nn",
}  # fmt: skip
WEAK = frozenset({"", "-", "shows", "imports", "explained", "helps"})  # they say little of what they stand in
QUIET = frozenset({"sets up", "configures", "runs in order", *WEAK})  # beside these a piece has one purpose
INTENT = (
    ("reads", r"^(?:load|read|fetch|import|get)_?(?:data|table|df|raw|\w+_data)?"), ("cleans", r"clean|preprocess|tidy|wrangle"),
    ("features", r"feature|engineer"), ("splits", r"split"), ("searches", r"tune|search|hyper"), ("fits", r"train|fit"),
    ("evaluates", r"eval|metric|score|report"), ("plots", r"plot|draw|chart"), ("saves", r"save|write|dump|export|store"),
    ("predicts", r"predict|infer"), ("takes arguments", r"parse|args|cli"), ("runs in order", r"^(?:main|run)"),
)  # fmt: skip
ANSWERS = frozenset(
    {
        "y",
        "Y",
        "y_train",
        "y_test",
        "y_all",
        "y_full",
        "y_true",
        "ytrain",
        "target",
        "targets",
        "label",
        "labels",
        "outcome",
    }
)
INPUTS = frozenset({"X", "x", "X_train", "X_test", "X_all", "features", "inputs", "data_X", "predictors"})


@dataclass(frozen=True)
class Part:
    """Some lines with one purpose.

    Attributes:
        first, last: Lines, counted from 1.
        purpose: A key of ROOMS.
        line: The line that made us think so.
        name: Of the function that it is part of.
        calls: Functions of the repository that it calls.
    """

    first: int
    last: int
    purpose: str
    line: int
    name: str = ""
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """What a person moves at once: a cell, a function, a class, or a block of lines.

    Attributes:
        source: Where it stands.
        kind: cell, function, class, block, or file where nothing in it could be read.
        name: Of a function or class.
        parts: By purpose, in order; together all of its code.
    """

    source: Source
    kind: str
    name: str
    first: int
    last: int
    parts: tuple[Part, ...]

    @property
    def purposes(self) -> list[str]:
        """What it does, each thing once, in order; what is quiet only where it does nothing else."""
        names = list(dict.fromkeys(part.purpose for part in self.parts))
        return [name for name in names if name not in QUIET] or [name for name in names if name not in WEAK] or names


@dataclass
class Reader:
    """What is known while a repository is read.

    Attributes:
        names: By file, what its short names stand for.
        functions: By name, what a function of the repository does.
        target: The column that is predicted, once it is known.
        tests: Whether the file at hand is one of tests.
    """

    names: dict[str, dict[str, str]] = field(default_factory=dict)
    functions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    target: str = ""
    at: str = ""

    def learn_names(self, repository: Repository) -> None:
        """What short names stand for in each file; a notebook is one file."""
        for source in repository.sources:
            known = self.names.setdefault(source.file, dict(USUAL))
            for node in source.nodes:
                known.update(_meant(node))
            for node in source.nodes:
                self._kept(node, known)

    def learn_functions(self, repository: Repository, target: str = "") -> None:
        """What functions of the repository do, before the lines are judged that call them.

        Args:
            repository: What was read, with its names learnt.
            target: The column that is predicted, if it is known.
        """
        self.target = target
        found = {
            node.name: (source.file, node)
            for source in repository.sources
            for node in source.nodes
            if isinstance(node, _NAMED)
        }
        self.functions = dict.fromkeys(found, ())
        for _ in range(2):  # a second time, now that what the called ones do is known
            for name, (file, node) in found.items():
                self.at = file
                purposes = [part.purpose for part in self.parts([node]) if part.purpose not in QUIET]
                self.functions[name] = tuple(dict.fromkeys(purposes))

    def _kept(self, node: ast.AST, known: dict[str, str]) -> None:
        """What a name was made by: `app = Flask(...)`, `model = Ridge()`."""
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and len(node.targets) == 1:
            target, made = node.targets[0], dotted(node.value.func, known)
            telling = re.search(
                rf"(?:^|\.){MODELS}$|(?:^|\.)(?:Flask|FastAPI|Dash|SparkSession|create_study|Pipeline|make_pipeline|\w*SearchCV)$",
                made,
            )
            if isinstance(target, ast.Name) and telling and target.id not in known:
                known[target.id] = f"{made}()"

    # -------------------------------------------------------------------------------------------------- Pieces

    def pieces(self, source: Source) -> list[Piece]:
        """Cut a source so that every statement is in one piece."""
        self.at = source.file
        end = max(1, len(source.lines))
        if source.cell or (source.fault and not source.body):
            kind = "cell" if source.cell else "file"
            return [Piece(source, kind, "", 1, end, tuple(self.parts(source.body)) or (Part(1, end, "", 1),))]
        if is_test(source.file):
            return [
                Piece(source, *_kind(run), _first(run[0]), _last(run[-1]), (Part(_first(run[0]), _last(run[-1]), "tests", run[0].lineno),))
                for run in _runs(source.body)
            ]  # fmt: skip
        return self._of_file(source)

    def _of_file(self, source: Source) -> list[Piece]:
        found: list[Piece] = []
        for run in _runs(source.body):
            if isinstance(run[0], _NAMED):
                found.append(Piece(source, *_kind(run), _first(run[0]), _last(run[-1]), tuple(self.parts(run))))
                continue
            plain: list[Part] = []
            for statement in run:
                parts = self._parts(statement, "")
                if len(parts) == 1:
                    plain += parts
                    continue
                found += _blocks(source, plain)
                found.append(Piece(source, "block", "", _first(statement), _last(statement), tuple(parts)))
                plain = []
            found += _blocks(source, plain)
        return found

    def parts(self, statements: Iterable[ast.stmt], name: str = "") -> list[Part]:
        """The purposes of some statements in order; neighbours of one purpose are one part."""
        found: list[Part] = []
        for statement in statements:
            found += self._parts(statement, name)
        return _merged(found)

    def _parts(self, statement: ast.stmt, name: str) -> list[Part]:
        first, last = _first(statement), _last(statement)
        inner = _inside(statement)
        if not inner:
            purpose, line, calls = self._purpose(statement)
            return [Part(first, last, purpose, line, name, calls)]
        named = getattr(statement, "name", name) if isinstance(statement, _NAMED) else name
        purpose, line = self._head(statement)
        parts = self.parts(inner, named)
        telling = {part.purpose for part in parts} - QUIET
        if purpose and not (purpose == "configures" and telling):
            return [Part(first, last, purpose, line, named)]
        if len(telling) < 2:
            kept = next((part for part in parts if part.purpose in telling), None) or _loudest(parts)
            if kept.purpose in WEAK and isinstance(statement, _NAMED):
                return [self._by_name(statement, first, last)]
            return [Part(first, last, kept.purpose, kept.line, named, kept.calls)]
        opening, at, calls = (
            self._purpose(_without_body(statement)) if not isinstance(statement, _NAMED) else ("", first, ())
        )
        if opening and opening not in QUIET:
            parts = _merged([Part(first, first, opening, at, named, calls), *parts])
        return _stretched(parts, first, last)

    def _by_name(self, statement: ast.stmt, first: int, last: int) -> Part:
        name = str(getattr(statement, "name", ""))
        if name.startswith("__"):
            return Part(first, last, "-", statement.lineno, name)
        if not isinstance(statement, ast.ClassDef):
            for purpose, pattern in INTENT:
                if re.search(pattern, name):
                    return Part(first, last, purpose, statement.lineno, name)
        return Part(first, last, "helps", statement.lineno, name)

    def _head(self, statement: ast.stmt) -> tuple[str, int]:
        """What decorators and bases say of a function or a class."""
        known = self.names.get(self.at, USUAL)
        for node in getattr(statement, "decorator_list", []):
            made = dotted(node.func if isinstance(node, ast.Call) else node, known)
            if re.search(
                r"^(?:flask|fastapi|streamlit|bentoml|dash)\b|^(?:app|api|router|bp)\.(?:route|get|post|put|callback)$",
                made,
            ):
                return "serves", node.lineno
            if re.search(r"^(?:prefect|airflow|dagster|metaflow|zenml|celery)\b", made):
                return "schedules", node.lineno
        for base in getattr(statement, "bases", []):
            made = dotted(base, known)
            if re.search(
                r"(?:^|\.)(?:TransformerMixin|BaseEstimator|ClassifierMixin|RegressorMixin)$|^torch\.nn\b|(?:^|\.)Module$|^keras\b",
                made,
            ):
                return "defines", statement.lineno
            if re.search(r"(?:^|\.)TestCase$", made):
                return "tests", statement.lineno
            if re.search(
                r"^(?:pydantic|pydantic_settings|typing\.NamedTuple|enum)\b|(?:^|\.)(?:BaseModel|BaseSettings|NamedTuple|Enum)$",
                made,
            ):
                return "configures", statement.lineno
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name.startswith("test_"):
            return "tests", statement.lineno
        return "", statement.lineno

    def _purpose(self, statement: ast.stmt) -> tuple[str, int, tuple[str, ...]]:
        """What one statement does, the line that says so, and the functions of the repository that it calls."""
        line = statement.lineno
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return "imports", line, ()
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return ("explained" if isinstance(statement.value.value, str) else "shows"), line, ()
        calls = self._calls(statement)
        own = tuple(dict.fromkeys(name.split(".")[-1] for name, _ in calls if name.split(".")[-1] in self.functions))
        target = self._target(statement)
        louder = {
            "serves",
            "tracks",
            "schedules",
            "searches",
            "splits",
            "reads",
            "evaluates",
            "shows quality",
            "predicts",
            "fits",
        }
        louder |= set() if _names(statement) & ANSWERS else {"learns inputs"}
        for purpose, pattern in COMPILED:
            if target and purpose not in louder:
                continue
            for name, at in calls:
                if pattern.search(name) and not _excused(purpose, name, calls):
                    return self._finer(purpose, statement, at), at, own
        if target:
            return target, line, own
        return self._plain(statement, own), line, own

    def _plain(self, statement: ast.stmt, own: tuple[str, ...]) -> str:
        """Of a statement whose calls tell nothing."""
        told = self._assigned(statement) if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign) else ""
        if any(self.functions[name] for name in own) and told in ("", "configures"):
            return "runs in order"
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            return told or ("-" if isinstance(statement.value, ast.Name | ast.Attribute | ast.Constant) else "")
        if isinstance(statement, ast.Expr):
            return "shows" if _shows(statement.value, self.names.get(self.at, USUAL)) else ""
        if isinstance(statement, ast.Return) and any(_mask(node) for node in ast.walk(statement)):
            return "chooses rows"
        plain = not any(isinstance(node, ast.Call) for node in ast.walk(statement))
        return "-" if plain else ""

    def _assigned(self, statement: ast.Assign | ast.AnnAssign | ast.AugAssign) -> str:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        value = statement.value
        if isinstance(target, ast.Subscript) and _column(target):
            return "makes the target" if _column(target) == self.target else "features"
        if isinstance(target, ast.Attribute) and target.attr == "columns":
            return "cleans"
        if value is not None and any(_mask(node) for node in ast.walk(value)):
            return "chooses rows"
        if isinstance(target, ast.Name) and target.id.isupper() and len(target.id) > 2:
            return "configures"
        simple = value is not None and all(isinstance(node, _LITERAL) for node in ast.walk(value))
        return "configures" if isinstance(target, ast.Name) and simple and len(target.id) > 2 else ""

    def _finer(self, purpose: str, statement: ast.stmt, line: int) -> str:
        """A purpose that the target of the assignment makes more precise."""
        if purpose in ("cleans", "features", "gathers") and isinstance(statement, ast.Assign):
            target = statement.targets[0]
            name = _column(target) if isinstance(target, ast.Subscript) else ""
            read = {_column(node) for node in ast.walk(statement.value) if isinstance(node, ast.Subscript)}
            if name and name == self.target and name not in read:
                return "makes the target"
            if name and purpose == "cleans" and name not in read:
                return "features"  # another column than the one that it was made of
        if (
            purpose in ("cleans", "features", "gathers")
            and isinstance(statement, ast.Expr)
            and not _in_place(statement)
        ):
            return "shows"
        if purpose == "fits" and any(
            DEFINES.search(dotted(one.func, self.names.get(self.at, USUAL)))
            for one in ast.walk(statement)
            if isinstance(one, ast.Call)
        ):
            return "defines"  # made and fitted in one line: the making moves
        if purpose == "saves" and re.search(r"submission|predict|scored", ast.unparse(statement), re.I):
            return "predicts"
        if purpose == "cleans" and _means(statement):
            return "learns inputs"
        return purpose

    def _target(self, statement: ast.stmt) -> str:
        """Whether a statement takes the target and the inputs apart."""
        if not isinstance(statement, ast.Assign):
            return ""
        names = _names(statement)
        if names & ANSWERS and not isinstance(statement.value, ast.Constant):
            return "names the target"
        if names & INPUTS:
            told = [
                node
                for node in ast.walk(statement.value)
                if isinstance(node, ast.Constant) and node.value == self.target
            ]
            plain = isinstance(
                getattr(statement.value, "value", None) if _is_values(statement.value) else statement.value,
                ast.Subscript,
            )
            return "names the target" if (told and self.target) or plain else ""
        return ""

    def _calls(self, statement: ast.stmt) -> list[tuple[str, int]]:
        """The names of what is called or looked into, written out, with their lines."""
        known = self.names.get(self.at, USUAL)
        found = []
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                found.append((dotted(node.func, known), node.lineno))
            elif isinstance(node, ast.Attribute):
                name = dotted(node, known)
                if (
                    re.match(r"os\.environ|sys\.(?:argv|path)|matplotlib\.pyplot\.rcParams|pandas\.options", name)
                    or ".dt." in name
                ):
                    found.append((name, node.lineno))
                elif node.attr in ("feature_importances_", "coef_"):
                    found.append(("shap.values", node.lineno))
        return found


_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_LITERAL = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.Load, ast.UnaryOp, ast.USub, ast.BinOp, ast.Mult,
            ast.Div, ast.Pow, ast.JoinedStr, ast.FormattedValue, ast.Name, ast.operator)  # fmt: skip


def needed(purpose: str) -> bool:
    """Whether code of that purpose moves anywhere; what the platform does instead stays behind."""
    return not ROOMS[purpose][1].startswith("not needed")


def is_test(file: str) -> bool:
    path = PurePosixPath(file)
    return path.name.startswith("test_") or path.stem.endswith("_test") or path.name == "conftest.py"


def dotted(node: ast.AST, known: Mapping[str, str]) -> str:
    """`pd.read_csv` as pandas.read_csv; calls in between as (), what cannot be named as ?."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, known)}.{node.attr}"
    if isinstance(node, ast.Call):
        return f"{dotted(node.func, known)}()"
    if isinstance(node, ast.Subscript):
        return f"{dotted(node.value, known)}[]"
    return "?"


def _meant(node: ast.AST) -> dict[str, str]:
    """What an import makes names stand for."""
    if isinstance(node, ast.Import):
        return {
            one.asname or one.name.split(".")[0]: one.name if one.asname else one.name.split(".")[0]
            for one in node.names
        }
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names if one.name != "*"}
    return {}


def _excused(purpose: str, name: str, calls: Sequence[tuple[str, int]]) -> bool:
    """Signs that mean something else here."""
    if purpose == "plots":  # the manners of a plot are no plot
        return bool(re.search(r"style|rcParams|^matplotlib\.use|^seaborn\.(?:set\w*|load_dataset)$", name))
    if purpose == "saves a model":
        return name.startswith("pickle.dumps")
    if purpose == "features" and name.endswith(".split"):
        return "str" not in name
    return purpose == "sets up" and name.startswith("warnings") and len(calls) > 3


def _means(statement: ast.stmt) -> bool:
    """Whether gaps are filled with what many rows tell."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fillna":
            inner = [one.func.attr for given in (*node.args, *(k.value for k in node.keywords)) for one in ast.walk(given)
                     if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute)]  # fmt: skip
            if {"mean", "median", "mode", "max", "min"} & set(inner):
                return True
    return False


def _mask(node: ast.AST) -> bool:
    """df[df["x"] > 0], df.loc[df.x > 0]."""
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Compare | ast.BoolOp | ast.BinOp | ast.UnaryOp)
        and (any(isinstance(one, ast.Compare) for one in ast.walk(node.slice)))
    )


def _is_values(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in ("values", "T")


def _names(statement: ast.stmt) -> set[str]:
    """The names that an assignment gives."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def _in_place(statement: ast.Expr) -> bool:
    """Whether an expression changes what it is called on."""
    given = [one for node in ast.walk(statement) if isinstance(node, ast.Call) for one in node.keywords]
    return any(one.arg == "inplace" for one in given)


LOOKS = frozenset(
    {
        "head",
        "tail",
        "describe",
        "info",
        "value_counts",
        "sample",
        "nunique",
        "unique",
        "sum",
        "isnull",
        "isna",
        "corr",
        "mean",
    }
)


def _shows(value: ast.expr, known: Mapping[str, str]) -> bool:
    """Whether a bare expression is there to be looked at."""
    if not isinstance(value, ast.Call):
        return not isinstance(value, ast.Await | ast.Yield | ast.YieldFrom)
    name = dotted(value.func, known)
    return name.split(".")[-1] in LOOKS or name in ("print", "display", "pprint.pprint") or name.startswith("log")


def _column(node: ast.Subscript) -> str:
    """The column of df["column"] and df.loc[mask, "column"], or nothing."""
    inner: ast.AST = node.slice
    if isinstance(inner, ast.Tuple) and len(inner.elts) == 2:
        inner = inner.elts[1]
    return inner.value if isinstance(inner, ast.Constant) and isinstance(inner.value, str) else ""


def _inside(statement: ast.stmt) -> list[ast.stmt]:
    """The statements in a statement."""
    found: list[ast.stmt] = []
    for name in ("body", "orelse", "finalbody"):
        found += getattr(statement, name, [])
    for handler in getattr(statement, "handlers", []):
        found += handler.body
    for case in getattr(statement, "cases", []):
        found += case.body
    return sorted(found, key=lambda one: one.lineno)


def _without_body(statement: ast.stmt) -> ast.stmt:
    """What a `for` or a `with` says before its first line."""
    held = [one for name in ("iter", "test", "subject") if (one := getattr(statement, name, None)) is not None]
    held += [item.context_expr for item in getattr(statement, "items", [])]
    plain = ast.Expr(ast.Tuple(held, ast.Load()))
    return ast.fix_missing_locations(ast.copy_location(plain, statement))


def _first(statement: ast.stmt) -> int:
    above: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(node.lineno for node in above)])


def _last(statement: ast.stmt) -> int:
    return statement.end_lineno or statement.lineno


def _kind(run: Sequence[ast.stmt]) -> tuple[str, str]:
    if isinstance(run[0], ast.ClassDef):
        return "class", run[0].name
    if isinstance(run[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return "function", run[0].name
    return "block", ""


def _runs(body: Sequence[ast.stmt]) -> list[list[ast.stmt]]:
    """A function or a class alone, all other statements together with their neighbours."""
    found: list[list[ast.stmt]] = []
    for statement in body:
        alone = isinstance(statement, _NAMED)
        if found and not alone and not isinstance(found[-1][0], _NAMED):
            found[-1].append(statement)
        elif found and not alone and _first(statement) == _last(found[-1][-1]):
            found[-1].append(statement)  # on the line of the function's end
        else:
            found.append([statement])
    return found


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Neighbours of one purpose as one; what tells nothing goes with the part before it, or after it."""
    found: list[Part] = []
    for part in parts:
        before = found[-1] if found else None
        same_line = before is not None and part.first <= before.last
        if before is None or not (part.name == before.name or same_line or "-" in (part.purpose, before.purpose)):
            found.append(part)
        elif part.purpose == before.purpose or same_line or _goes_along(part, before):
            calls = tuple(dict.fromkeys((*before.calls, *part.calls)))
            told = part if same_line and _louder(part, before) else before
            found[-1] = Part(before.first, max(before.last, part.last), told.purpose, told.line, before.name, calls)
        elif (
            before.purpose in ("", "-", "shows", "explained")
            and before.last - before.first < 3
            and part.purpose != "imports"
        ):
            found[-1] = Part(before.first, part.last, part.purpose, part.line, part.name, (*before.calls, *part.calls))
        else:
            found.append(part)
    return found


def _louder(part: Part, before: Part) -> bool:
    """Of two on one line, whether the second is the one that has to move."""
    return part.purpose not in QUIET and (
        before.purpose in QUIET or (needed(part.purpose) and not needed(before.purpose))
    )


def _goes_along(part: Part, before: Part) -> bool:
    """Whether a part is the tail of the one before; what nobody understands is never hidden in what is not needed."""
    if part.purpose == "":
        return needed(before.purpose)
    return part.purpose == "-" or (part.purpose == "shows" and before.purpose != "imports")


def _blocks(source: Source, parts: Sequence[Part]) -> list[Piece]:
    return [Piece(source, "block", "", part.first, part.last, (part,)) for part in _merged(parts)]


def _loudest(parts: Sequence[Part]) -> Part:
    return next((part for part in parts if part.purpose not in WEAK), parts[0])


def _stretched(parts: Sequence[Part], first: int, last: int) -> list[Part]:
    """Parts that together cover the lines from first to last."""
    begins = [first, *(part.first for part in parts[1:])]
    ends = [*(begin - 1 for begin in begins[1:]), last]
    return [
        Part(begin, max(begin, end), part.purpose, part.line, part.name, part.calls)
        for begin, end, part in zip(begins, ends, parts, strict=True)
    ]
