"""A table as its record has it: names, types, null and meaning of its columns stand once, in a NamedTuple.

A field is ``name: Annotated[type, "what it means"]``; ``type | None`` may be null. All else follows: the
Arrow schema, the Markdown of columns.md, the way from records to a table and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Generic, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

from iqa_results.errors import BadPart

Record = TypeVar("Record", bound=tuple[Any, ...])

_TYPES = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_(), bytes: pa.binary()}


class Column(NamedTuple):
    """One column of a stored table."""

    name: str
    type: pa.DataType
    nullable: bool
    doc: str


class TableSchema(Generic[Record]):
    """Columns of a table whose rows are NamedTuples of one class.

    Args:
        record: the class, each field annotated with its meaning.
        metadata: of the whole table, such as the version of its schema.
    """

    def __init__(self, record: type[Record], metadata: Mapping[str, str] | None = None) -> None:
        self.record = record
        hints = get_type_hints(record, include_extras=True)
        self.columns = tuple(_column(name, hint) for name, hint in hints.items())
        self.names = [column.name for column in self.columns]
        self.arrow: pa.Schema = pa.schema(
            [pa.field(c.name, c.type, nullable=c.nullable, metadata={"doc": c.doc}) for c in self.columns],
            metadata=metadata,
        )

    def to_table(self, rows: Iterable[Record | Mapping[str, Any]], what: str = "rows") -> pa.Table:
        """Return records, or mappings of the same names, as a table; `what` names them in messages.

        Raises:
            BadPart: a column is missing, unknown, null where it may not be, or of another type.
        """
        values = list(zip(*(self._values(row, what) for row in rows), strict=True))
        if not values:
            return self.arrow.empty_table()
        try:
            arrays = [pa.array(v, c.type) for v, c in zip(values, self.columns, strict=True)]
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeError) as error:
            raise BadPart(f"{what}: {error}") from error
        for array, column in zip(arrays, self.columns, strict=True):
            if array.null_count and not column.nullable:  # Arrow itself lets it pass
                raise BadPart(f"{what}: column {column.name!r} holds null")
        return pa.Table.from_arrays(arrays, schema=self.arrow)

    def _values(self, row: Record | Mapping[str, Any], what: str) -> tuple[Any, ...]:
        if not isinstance(row, Mapping):
            return row
        unknown, missing = set(row) - set(self.names), set(self.names) - set(row)
        if unknown or missing:
            raise BadPart(f"{what}: columns missing {sorted(missing)}, unknown {sorted(unknown)}")
        return tuple(row[name] for name in self.names)

    def rows(self, table: pa.Table) -> list[Record]:
        """Return the rows of a table that has these columns, and may have others."""
        columns = (table.column(name).to_pylist() for name in self.names)
        return [self.record(*values) for values in zip(*columns, strict=True)]

    def markdown(self) -> str:
        """Return the columns as a Markdown table: name, type, meaning."""
        lines = ["| column | type | meaning |", "|---|---|---|"]
        for c in self.columns:
            kind = f"{c.type} or null" if c.nullable else str(c.type)
            meaning = c.doc.replace("|", "\\|")  # a bare one would end the cell
            lines.append(f"| `{c.name}` | {kind} | {meaning} |")
        return "\n".join(lines)


def _column(name: str, hint: Any) -> Column:
    kind, doc = get_args(hint)
    optional = get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind)
    return Column(name, _arrow(kind), optional, doc)


def _arrow(kind: Any) -> pa.DataType:
    if kind in _TYPES:
        return _TYPES[kind]
    if get_origin(kind) in (Union, UnionType):
        return _arrow(next(part for part in get_args(kind) if part is not NoneType))
    if get_origin(kind) is Sequence:
        return pa.list_(_arrow(get_args(kind)[0]))
    return pa.struct([(name, _arrow(part)) for name, part in get_type_hints(kind).items()])
