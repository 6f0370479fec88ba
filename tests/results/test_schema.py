"""A record documents its table, and schema, documents and stored files of the first edition agree with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pyarrow as pa
import pytest

import iqa_results.schema
from iqa_results import BadPart, TableSchema
from iqa_results.schema import columns_page

README = Path(__file__).parents[2] / "results" / "README.md"
FIRST_EDITION = json.loads(Path(__file__).with_name("first_edition").joinpath("schemas.json").read_text())
SCHEMAS = {
    name.lower(): schema
    for name, schema in vars(iqa_results.schema).items()
    if isinstance(schema, TableSchema)
}


class Point(NamedTuple):
    """A table of the tests."""

    name: Annotated[str, "a | b"]
    place: Annotated[int, "second"]
    value: Annotated[float | None, "third"] = None


POINT = TableSchema(Point, {"schema_version": "7"})


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_is_described(name: str) -> None:
    """None is without a meaning, in the record's order, and the file's own metadata says it too."""
    schema = SCHEMAS[name]
    assert schema.names == list(schema.record._fields)
    assert all(c.doc.strip() for c in schema.columns)
    assert [f.metadata[b"doc"].decode() for f in schema.arrow] == [c.doc for c in schema.columns]


@pytest.mark.parametrize("name", sorted(set(SCHEMAS) - {"certificate"}))  # it knew none
def test_the_columns_are_those_of_the_first_edition(name: str) -> None:
    """Names, types, null and version: what the first edition stored is read, and so are its cells' keys."""
    found = SCHEMAS[name].arrow
    assert [[f.name, str(f.type), f.nullable] for f in found] == FIRST_EDITION[name]["fields"]
    assert {k.decode(): v.decode() for k, v in found.metadata.items()} == FIRST_EDITION[name]["metadata"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_description_is_a_table_of_three_columns(name: str) -> None:
    """Every line of the Markdown table has three cells, whatever signs a meaning holds."""
    for line in SCHEMAS[name].markdown().splitlines():
        assert len(re.split(r"(?<!\\)\|", line)) == 5


def test_the_page_is_what_the_records_say() -> None:
    """columns.md is written by `columns_page`; results/README.md has the command."""
    assert README.with_name("columns.md").read_text(encoding="utf-8") == columns_page()


def test_records_become_a_table_and_again_records() -> None:
    """A record and a mapping of its names are one row; further columns of a table are passed over."""
    table = POINT.to_table([Point("x", 1, 0.5), {"value": None, "name": "y", "place": 2}])
    assert table.schema.equals(POINT.arrow, check_metadata=True)
    assert POINT.rows(table.append_column("more", pa.array([1, 2]))) == [Point("x", 1, 0.5), Point("y", 2)]
    assert POINT.to_table([]).equals(POINT.arrow.empty_table())
    assert POINT.markdown().splitlines()[2:] == [
        "| `name` | string | a \\| b |",
        "| `place` | int64 | second |",
        "| `value` | double or null | third |",
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"name": "x", "place": 1}, r"missing \['value'\], unknown \[\]"),
        ({"name": "x", "place": 1, "value": 1.0, "colour": 1}, r"missing \[\], unknown \['colour'\]"),
        (Point("x", None), "'place' holds null"),  # type: ignore[arg-type]
        (Point("x", "one"), "points: "),  # type: ignore[arg-type]
        (Point("x", 2**70), "points: "),
        (Point("\udcff", 1), "points: "),
    ],
)
def test_a_row_that_does_not_fit_is_refused(row: Any, words: str) -> None:
    """A column missing, unknown, null, of another type, too large, or no text: the message says where."""
    with pytest.raises(BadPart, match=words):
        POINT.to_table([Point("x", 1), row], "points")


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
