"""Parquet files: written whole with page checksums, read only after their footer was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iqa_results.errors import BadPart, OtherVersion
from iqa_results.storage import Location, write_whole

ROOM = 64 << 20
"""Bytes that any table may take in memory."""
EXAMPLE_ROOM = 2 << 30
"""The same for attacked images, which shrink to nothing where an attack left the pixels alone."""
GROWTH = 100
"""How many times its own size a larger one may take: our own files grow tenfold at the most."""

_VERSION = b"schema_version"

Place = TypeVar("Place", bound=Location)


def write_parquet(path: Place, table: pa.Table) -> Place:
    """Write a table as one Parquet file, whole or not at all, and return the path."""
    whole = pa.BufferOutputStream()
    pq.write_table(table, whole, compression="zstd", write_page_checksum=True)
    write_whole(path, whole.getvalue().to_pybytes())
    return path


def read_parquet(
    path: Location, schema: pa.Schema, *, room: int = ROOM, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a Parquet file, verified against the schema, a bound of its size and its page checksums.

    Args:
        path: of the file.
        schema: what it must have.
        room: bytes it may take in memory.
        columns: read these only, texts as dictionaries; what is not read is not verified.

    Raises:
        BadPart: missing, damaged, of another schema, or far larger in memory than in the file.
        OtherVersion: whole, but the version in its metadata is not the schema's.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise BadPart(f"{path}: no such file") from error
    other = f"{path}: written by another version of iqa-harness (schema differs)"
    try:
        source = pa.BufferReader(content)
        footer = pq.read_metadata(source)
        there = footer.schema.to_arrow_schema()
        version, own = ((s.metadata or {}).get(_VERSION) for s in (there, schema))
        if version in (None, own) and not (version == own and there.equals(schema)):
            raise BadPart(other)
        limit = max(room, GROWTH * len(content))
        _require_room(path, footer, there, limit)
        read = columns or there.names
        words = [name for name in read if pa.types.is_string(there.field(name).type)]
        part = pq.ParquetFile(source, metadata=footer, page_checksum_verification=True, read_dictionary=words)
        # One thread: a pool's would free the Python bytes, perhaps when the interpreter has ended.
        packed = part.read(columns=columns, use_threads=False)
        _require_words_fit(path, packed, words, limit)
        table = packed if columns else packed.cast(there)
    except (pa.ArrowException, OSError, UnicodeError) as error:  # UnicodeError: a damaged column name
        raise BadPart(f"{path}: damaged ({error}); delete the file and run again") from error
    # Checksums cover pages, not the footer: a row group's damaged count would give fewer rows in silence.
    if table.num_rows != footer.num_rows:
        raise BadPart(f"{path}: damaged (row counts disagree); delete the file and run again")
    if version != own:
        raise OtherVersion(other)
    return table


def _require_room(path: Location, footer: pq.FileMetaData, schema: pa.Schema, limit: int) -> None:
    """Refuse a file whose rows or pages would take far more memory than it takes itself."""
    groups = (footer.row_group(index) for index in range(footer.num_row_groups))
    pages = sum(group.total_byte_size for group in groups)
    _refuse_growth(path, max(pages, footer.num_rows * 8 * len(schema)), limit)


def _require_words_fit(path: Location, packed: pa.Table, words: list[str], limit: int) -> None:
    """Refuse a few long texts that stand in very many rows: they are small until they are written out."""
    chunks = [chunk for name in words for chunk in packed.column(name).chunks]
    longest = (pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0 for chunk in chunks)
    if sum(length * len(chunk) for length, chunk in zip(longest, chunks, strict=True)) <= limit:
        return  # however they are spread
    lengths = (
        pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)).as_py() or 0 for chunk in chunks
    )
    _refuse_growth(path, sum(lengths), limit)


def _refuse_growth(path: Location, needed: int, limit: int) -> None:
    if needed > limit:
        raise BadPart(f"{path}: would take {needed:,} bytes in memory: no file of iqa-harness; delete it")
