"""What the service's page (OpenAPI) says of rows and answers, read off the contract of the bundle."""

from __future__ import annotations

from typing import Any

from copier_mlops.bundle.bundle import UNSEEN, Bundle
from copier_mlops.contract.contract import Column, Contract
from copier_mlops.serving.request_parser import described

ANSWERS = ("/predict", "/explain", "/model")
"""What people come for; it stands first."""


def described_by(bundle: Bundle, page: dict[str, Any], is_open: bool) -> dict[str, Any]:
    """Add to a page what its framework cannot know: the rows, the answers, who may ask; `is_open`: everybody."""
    contract = bundle.contract
    schemas = page.setdefault("components", {}).setdefault("schemas", {})
    schemas |= {"Row": row(contract), "Answer": answer(contract), "Problem": PROBLEM, "Refusal": REFUSAL}
    example = example_row(bundle)
    one_or_many = {"oneOf": [_ref("Row"), {"type": "array", "items": _ref("Row")}]}
    page["paths"]["/predict"] = {
        "post": {
            "summary": "Answer one row, or many",
            "description": "An object is one row and gives one answer; an array is many and gives as many, in their order.",
            "operationId": "predict",
            "requestBody": _body(one_or_many, {"one": {"value": example}, "many": {"value": [example, example]}}),
            "responses": {
                "200": _says(
                    "The answer, or answers", {"oneOf": [_ref("Answer"), {"type": "array", "items": _ref("Answer")}]}
                ),
                "422": _says("Values are not what the contract says; none of the rows was answered", _ref("Refusal")),
                **{str(status): _says(words, _ref("Problem")) for status, words in PROBLEMS.items()},
            },
        }
    }
    named = {"type": "object", "properties": {"prediction_id": {"type": "string"}}, "required": ["prediction_id"]}
    explain = page["paths"]["/explain"]["post"]
    explain["requestBody"] = _body(
        {"oneOf": [_ref("Row"), named]},
        {"row": {"value": example}, "logged": {"value": {"prediction_id": "5b0c5d3e9f7a4c1e8d2b6a9f3c7e1d40"}}},
    )
    for path, way in (("/explain", explain), ("/model", page["paths"]["/model"]["get"])):
        told = {status: words for status, words in PROBLEMS.items() if path == "/explain" or status in (401, 503)}
        way["responses"] |= {str(status): _says(words, _ref("Problem")) for status, words in told.items()}
    explain["responses"] |= {
        "404": _says("The log has no such prediction", _ref("Problem")),
        "409": _says("The bundle has no rows to compare with", _ref("Problem")),
        "422": _says("Values are not what the contract says", _ref("Refusal")),
    }
    first = {path: ways for path, ways in page["paths"].items() if path in ANSWERS}
    page["paths"] = {path: first[path] for path in ANSWERS} | page["paths"]
    for path, ways in page["paths"].items():
        for way in ways.values():
            way["tags"] = ["answers" if path in ANSWERS else "operation"]
    if not is_open:
        page["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "token": {"type": "http", "scheme": "bearer"},
        }
        for path in ANSWERS:
            for way in page["paths"][path].values():
                way["security"] = [{"key": []}, {"token": []}]
    return page


def example_row(bundle: Bundle) -> dict[str, Any]:
    """A row that the bundle brought along; without its id, which is made up, where that has to follow rules."""
    found = dict(zip(bundle.expected["columns"], bundle.expected["rows"][0], strict=True))
    name = bundle.contract[bundle.contract.id]
    if name.pattern or name.allowed or name.minimum is not None or name.maximum is not None:
        found.pop(name.name, None)
    return found


def row(contract: Contract) -> dict[str, Any]:
    """The JSON schema of a row."""
    columns = contract.without_target()
    required = [one.name for one in columns if one.name not in contract.optional]
    properties = {one.name: field(one) for one in columns}
    for one in contract.pooled:
        if one.allowed is not None:
            properties[one.name]["examples"] = list(one.allowed)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def field(column: Column) -> dict[str, Any]:
    """The JSON schema of a value."""
    kind = {"timestamp": "string"}.get(column.kind, column.kind)
    said: dict[str, Any] = {"type": [kind, "null"] if column.nullable else kind, "description": described(column)}
    if column.kind == "timestamp":
        said["format"] = "date-time"
    if column.minimum is not None:
        said["minimum"] = column.minimum
    if column.maximum is not None:
        said["maximum"] = column.maximum
    if column.allowed is not None:
        said["enum"] = [*column.allowed, None] if column.nullable else list(column.allowed)
    elif column.pattern is not None:
        said["pattern"] = f"^(?:{column.pattern})$"
    elif kind == "string":
        said["minLength"] = 1
    return said


def answer(contract: Contract) -> dict[str, Any]:
    """The JSON schema of an answer."""
    said: dict[str, Any] = {"id": {"description": "The id of the row, as it came or as it was made up"}}
    if contract.classes:
        said["prediction"] = {"type": "string", "enum": list(contract.classes)}
    said["score"] = {"type": ["number", "null"], "description": "The probability of the class, or the number predicted"}
    if len(contract.answers) > 1:
        said["scores"] = {"type": "object", "additionalProperties": {"type": "number"}}
    said["version"] = {"type": "integer", "description": "Of the model that answered"}
    said["prediction_id"] = {
        "type": "string",
        "description": "Names this answer: for /explain, and for what became of it",
    }
    required = list(said)
    if contract.pooled:
        said[UNSEEN] = {
            "type": "array",
            "items": {"type": "string"},
            "description": "The fields whose value was not seen in training and is taken for an unknown one; left out if there is none",
        }
    return {"type": "object", "properties": said, "required": required}


PROBLEM = {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
REFUSAL = {
    "type": "object",
    "properties": {
        "detail": {"type": "string"},
        "count": {"type": "integer"},
        "faults": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "row": {"type": "integer", "description": "Which row, from 0"},
                    "field": {"type": "string"},
                    "value": {"type": "string", "description": "What came"},
                    "allowed": {"type": "string", "description": "What may come, in words"},
                },
                "required": ["row", "field", "value", "allowed"],
            },
        },
    },
    "required": ["detail", "count", "faults"],
}
PROBLEMS = {
    400: "The body is no JSON",
    401: "No key, or one that does not hold",
    408: "The body did not come in time",
    413: "Too many bytes, or too many rows",
    415: "The body is compressed",
    429: "Too many rows wait; ask again after the seconds of Retry-After",
    503: "The identity provider does not answer",
    504: "There was no answer in time",
}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _says(words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _body(schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}
