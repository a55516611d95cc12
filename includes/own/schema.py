"""The data contract: what a row is. Yours; `make test` and every stage read it.

A small one, until `make adopt DATA=... TARGET=...` writes that of your table.
"""

from ..api import Column, Contract

CONTRACT = Contract(
    (
        Column("id", "string", role="id"),
        Column("moment", "timestamp", role="time"),
        Column("amount", "number", minimum=0, maximum=1000),
        Column("count", "integer", nullable=True, minimum=0, maximum=50),
        Column("kind", "string", allowed=("a", "b", "c")),
        {% if problem == 'classification' -%}
        Column("answer", "boolean", role="target"),
        {%- else -%}
        Column("answer", "number", role="target", minimum=-1000, maximum=1000),
        {%- endif %}
    )
)
