"""Parquet parts and manifests on disk: each written whole or not at all.

Layout under the store's root::

    cells/<first two digits of key>/<key>.parquet   one part a cell (ROW_SCHEMA)
    runs/<run>/manifest.json                        RunManifest
    runs/<run>/table.parquet                        TABLE_SCHEMA
    runs/<run>/intervals.parquet                    INTERVAL_SCHEMA
    runs/<run>/flags.parquet                        FLAG_SCHEMA
    runs/<run>/differences.parquet                  DIFFERENCE_SCHEMA
    runs/<run>/measures.parquet                     MEASURE_SCHEMA
    runs/<run>/fits.parquet                         FIT_SCHEMA

Cells belong to no run: two runs that need the same cell share its part.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from iqa_results.errors import BadManifest, BadPart, ResultsError, UnknownRun
from iqa_results.manifest import RunManifest
from iqa_results.schema import (
    DIFFERENCE_SCHEMA,
    FIT_SCHEMA,
    FLAG_SCHEMA,
    INTERVAL_SCHEMA,
    MEASURE_SCHEMA,
    ROW_SCHEMA,
    TABLE_SCHEMA,
)

_KEY = re.compile(r"[0-9a-f]{64}")
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ResultStore:
    """A folder of cells and runs; creating the object creates nothing on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # Cells -----------------------------------------------------------------------------------

    def cell_path(self, key: str) -> Path:
        """Return where the part of a cell is or will be.

        Raises:
            ResultsError: the key is not 64 hexadecimal digits.
        """
        if not _KEY.fullmatch(key):
            raise ResultsError(f"a cell's key is 64 hexadecimal digits, not {key!r}")
        return self.root / "cells" / key[:2] / f"{key}.parquet"

    def has_cell(self, key: str) -> bool:
        """Whether the part of a cell is there; parts are renamed into place, so it is whole."""
        return self.cell_path(key).is_file()

    def write_cell(self, key: str, rows: Sequence[dict[str, Any]]) -> Path:
        """Write the rows of a cell as one part, whole or not at all.

        Raises:
            BadPart: the rows do not fit ROW_SCHEMA, or a row is of another cell.
        """
        if not rows:
            raise BadPart(f"cell {key[:12]}: no rows to write")
        if any(row.get("cell") != key for row in rows):
            raise BadPart(f"cell {key[:12]}: a row carries another cell's key")
        return _write_table(self.cell_path(key), _as_table(rows, ROW_SCHEMA, f"cell {key[:12]}"))

    def read_cell(self, key: str) -> pa.Table:
        """Read one part, verified against its page checksums, its schema and its key.

        Raises:
            BadPart: missing, damaged, of another schema, or holding another cell's rows.
        """
        path = self.cell_path(key)
        table = _read_table(path, ROW_SCHEMA)
        if set(table.column("cell").unique().to_pylist()) != {key}:
            raise BadPart(f"{path}: holds rows of another cell; delete the file and run again")
        return table

    def read_cells(self, keys: Iterable[str]) -> pa.Table:
        """Read many parts into one table, in the order of the keys."""
        tables = [self.read_cell(key) for key in keys]
        return pa.concat_tables(tables) if tables else ROW_SCHEMA.empty_table()

    # Runs ------------------------------------------------------------------------------------

    def run_folder(self, run: str) -> Path:
        """Return the folder of a run.

        Raises:
            ResultsError: the name could leave the store or is not a plain file name.
        """
        if not _RUN.fullmatch(run):
            raise ResultsError(
                f"a run's name is letters, digits, '.', '_' and '-' (at most 100), not {run!r}"
            )
        return self.root / "runs" / run

    def list_runs(self) -> list[str]:
        """Return the names of the runs in the store, sorted."""
        return sorted(p.parent.name for p in self.root.glob("runs/*/manifest.json"))

    def write_manifest(self, manifest: RunManifest) -> Path:
        """Write a run's manifest, replacing the former one whole.

        Raises:
            BadManifest: it holds NaN or an infinity, which JSON has no word for.
        """
        path = self.run_folder(manifest.run) / "manifest.json"
        try:
            text = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=False, allow_nan=False)
        except ValueError as error:
            raise BadManifest(f"{path}: {error}") from error
        return _replace(path, lambda part: part.write_text(text + "\n", encoding="utf-8"))

    def read_manifest(self, run: str) -> RunManifest:
        """Read a run's manifest.

        Raises:
            UnknownRun: no such run in this store.
            BadManifest: the file is damaged or of another format.
        """
        path = self.run_folder(run) / "manifest.json"
        if not path.is_file():
            known = ", ".join(self.list_runs()) or "none"
            raise UnknownRun(f"no run {run!r} in {self.root}; runs there: {known}")
        try:
            return RunManifest.model_validate_json(path.read_bytes(), strict=False)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise BadManifest(f"{path}: {where}: {first['msg']}") from error

    def write_table(self, run: str, rows: Sequence[dict[str, Any]]) -> Path:
        """Write a run's table of metrics (TABLE_SCHEMA)."""
        return _write_table(
            self.run_folder(run) / "table.parquet", _as_table(rows, TABLE_SCHEMA, f"run {run}")
        )

    def read_table(self, run: str) -> pa.Table:
        """Read a run's table of metrics."""
        return _read_table(self.run_folder(run) / "table.parquet", TABLE_SCHEMA)

    def write_intervals(self, run: str, rows: Sequence[dict[str, Any]]) -> Path:
        """Write a run's reachable intervals (INTERVAL_SCHEMA)."""
        table = _as_table(rows, INTERVAL_SCHEMA, f"run {run}")
        return _write_table(self.run_folder(run) / "intervals.parquet", table)

    def read_intervals(self, run: str) -> pa.Table:
        """Read a run's reachable intervals."""
        return _read_table(self.run_folder(run) / "intervals.parquet", INTERVAL_SCHEMA)

    def write_flags(self, run: str, rows: Sequence[dict[str, Any]]) -> Path:
        """Write a run's what speaks against its numbers (FLAG_SCHEMA)."""
        table = _as_table(rows, FLAG_SCHEMA, f"run {run}")
        return _write_table(self.run_folder(run) / "flags.parquet", table)

    def read_flags(self, run: str) -> pa.Table:
        """Read a run's what speaks against its numbers."""
        return _read_table(self.run_folder(run) / "flags.parquet", FLAG_SCHEMA)

    def write_differences(self, run: str, rows: Sequence[dict[str, Any]]) -> Path:
        """Write a run's paired differences between its models (DIFFERENCE_SCHEMA)."""
        table = _as_table(rows, DIFFERENCE_SCHEMA, f"run {run}")
        return _write_table(self.run_folder(run) / "differences.parquet", table)

    def read_differences(self, run: str) -> pa.Table:
        """Read a run's paired differences between its models."""
        return _read_table(self.run_folder(run) / "differences.parquet", DIFFERENCE_SCHEMA)

    def write_measures(self, run: str, rows: Sequence[dict[str, Any]]) -> Path:
        """Write a run's measures besides the correlations (MEASURE_SCHEMA)."""
        table = _as_table(rows, MEASURE_SCHEMA, f"run {run}")
        return _write_table(self.run_folder(run) / "measures.parquet", table)

    def read_measures(self, run: str) -> pa.Table:
        """Read a run's measures besides the correlations."""
        return _read_table(self.run_folder(run) / "measures.parquet", MEASURE_SCHEMA)

    def write_fits(self, run: str, rows: Sequence[dict[str, Any]]) -> Path:
        """Write a run's logistic fits (FIT_SCHEMA)."""
        table = _as_table(rows, FIT_SCHEMA, f"run {run}")
        return _write_table(self.run_folder(run) / "fits.parquet", table)

    def read_fits(self, run: str) -> pa.Table:
        """Read a run's logistic fits."""
        return _read_table(self.run_folder(run) / "fits.parquet", FIT_SCHEMA)


def _as_table(rows: Sequence[dict[str, Any]], schema: pa.Schema, what: str) -> pa.Table:
    for row in rows:
        unknown = set(row) - set(schema.names)
        missing = set(schema.names) - set(row)
        if unknown or missing:
            raise BadPart(f"{what}: columns missing {sorted(missing)}, unknown {sorted(unknown)}")
    try:
        table = pa.Table.from_pylist(list(rows), schema=schema)
        # from_pylist accepts null anywhere; validate() does not look at nullability either.
        for field in schema:
            if not field.nullable and table.column(field.name).null_count:
                raise BadPart(f"{what}: column {field.name!r} holds null")
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeError) as error:
        raise BadPart(f"{what}: {error}") from error
    return table


def _write_table(path: Path, table: pa.Table) -> Path:
    return _replace(
        path,
        lambda part: pq.write_table(table, part, compression="zstd", write_page_checksum=True),
    )


def _replace(path: Path, write: Any) -> Path:
    """Write beside `path` under a name of our own, flush to disk, then rename into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        write(part)
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    if not path.is_file():
        raise BadPart(f"{path}: no such file")
    try:
        part = pq.ParquetFile(path, page_checksum_verification=True)
        table = part.read()
    except (pa.ArrowException, OSError, UnicodeError) as error:  # UnicodeError: a damaged column name
        raise BadPart(f"{path}: damaged ({error}); delete the file and run again") from error
    # Checksums cover pages, not the footer: a row group's damaged count would give fewer rows in silence.
    if table.num_rows != part.metadata.num_rows:
        raise BadPart(f"{path}: damaged (row counts disagree); delete the file and run again")
    version = (table.schema.metadata or {}).get(b"schema_version")
    if not table.schema.equals(schema) or version != schema.metadata[b"schema_version"]:
        raise BadPart(f"{path}: written by another version of iqa-harness (schema differs)")
    return table
