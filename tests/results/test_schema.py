"""The schema is documented, and the documents are the schema."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from iqa_results import (
    BASELINE_COLUMNS,
    DIFFERENCE_COLUMNS,
    DIFFERENCE_SCHEMA,
    EXAMPLE_COLUMNS,
    FIT_COLUMNS,
    FIT_SCHEMA,
    FLAG_COLUMNS,
    FLAG_SCHEMA,
    INTERVAL_COLUMNS,
    INTERVAL_SCHEMA,
    MEASURE_COLUMNS,
    MEASURE_SCHEMA,
    ROW_COLUMNS,
    ROW_SCHEMA,
    TABLE_COLUMNS,
    TABLE_SCHEMA,
    Column,
    describe,
)

README = Path(__file__).parents[2] / "results" / "README.md"
COLUMNS = README.with_name("columns.md")
ALL = {
    "rows": ROW_COLUMNS,
    "table": TABLE_COLUMNS,
    "intervals": INTERVAL_COLUMNS,
    "flags": FLAG_COLUMNS,
    "differences": DIFFERENCE_COLUMNS,
    "measures": MEASURE_COLUMNS,
    "fits": FIT_COLUMNS,
    "examples": EXAMPLE_COLUMNS,
    "baseline": BASELINE_COLUMNS,
}


@pytest.mark.parametrize("columns", ALL.values(), ids=ALL.keys())
def test_every_column_is_named_once_and_described(columns: tuple[Column, ...]) -> None:
    """No two columns share a name, and none is without a meaning."""
    names = [c.name for c in columns]
    assert len(set(names)) == len(names)
    assert all(c.doc.strip() for c in columns)


@pytest.mark.parametrize("columns", ALL.values(), ids=ALL.keys())
def test_a_description_is_a_table_of_three_columns(columns: tuple[Column, ...]) -> None:
    """Every line of the Markdown table has three cells, whatever signs a meaning holds."""
    for line in describe(columns).splitlines():
        assert len(re.split(r"(?<!\\)\|", line)) == 5


@pytest.mark.parametrize("columns", ALL.values(), ids=ALL.keys())
def test_the_pages_hold_the_schema_as_it_is(columns: tuple[Column, ...]) -> None:
    """columns.md shows every column exactly as describe() gives it; paste it anew after a change."""
    assert describe(columns) in COLUMNS.read_text(encoding="utf-8")


def test_the_readmes_example_runs(monkeypatch: pytest.MonkeyPatch, readme_store: Path) -> None:
    """The Python example of results/README.md runs on a store as it stands."""
    example = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert example
    monkeypatch.chdir(readme_store)
    names: dict[str, Any] = {}
    exec(example.group(1), names)  # noqa: S102  our own README
    assert names["worst"].to_dict("records") == [
        {"model": "x", "clean": 0.5, "value": 0.5, "low": 0.5, "high": 0.5}
    ]


def test_schemas_carry_their_version() -> None:
    """Every stored schema says which version wrote it."""
    tables = (TABLE_SCHEMA, INTERVAL_SCHEMA, FLAG_SCHEMA, DIFFERENCE_SCHEMA, MEASURE_SCHEMA, FIT_SCHEMA)
    for schema in (ROW_SCHEMA, *tables):
        assert schema.metadata[b"schema_version"] == b"2"
