"""Parquet parts and manifests: each written whole or not at all, on disk or on an object store.

Layout under the store's root::

    cells/<first two digits of key>/<key>.parquet   one part a cell (ROW_SCHEMA)
    examples/<first two digits of key>/<key>.parquet  attacked images of a cell (EXAMPLE_SCHEMA), if kept
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

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from iqa_results.errors import BadManifest, BadPart, ResultsError, UnknownRun
from iqa_results.manifest import RunManifest
from iqa_results.schema import (
    DIFFERENCE_SCHEMA,
    EXAMPLE_SCHEMA,
    FIT_SCHEMA,
    FLAG_SCHEMA,
    INTERVAL_SCHEMA,
    MEASURE_SCHEMA,
    ROW_SCHEMA,
    TABLE_SCHEMA,
)
from iqa_results.storage import (
    Location,
    RemotePath,
    file_size,
    is_name,
    list_files,
    locate,
    require_name,
    write_whole,
)

_KEY = re.compile(r"[0-9a-f]{64}")
_CELLS = b"cells_sha256"
_SCORES = ("mos", "clean_score", "adv_score", "adv_score_8bit", "adv_score_jpeg", "attack_score")


class ResultStore:
    """A folder of cells and runs; creating the object creates nothing on disk.

    Any number of processes may write to one store at once: a part is replaced whole, and two that
    compute the same cell write the same rows.
    """

    def __init__(self, root: Path | str | RemotePath) -> None:
        """Take a folder, or a URL such as ``s3://bucket/folder``.

        Raises:
            ResultsError: the URL's file system is not installed, or no folder in it is named.
        """
        self.root: Location = locate(root)

    # Cells -----------------------------------------------------------------------------------

    def cell_path(self, key: str) -> Location:
        """Return where the part of a cell is or will be.

        Raises:
            ResultsError: the key is not 64 hexadecimal digits.
        """
        return self._keyed("cells", key)

    def _keyed(self, folder: str, key: str) -> Location:
        if not _KEY.fullmatch(key):
            raise ResultsError(f"a cell's key is 64 hexadecimal digits, not {key!r}")
        return self.root / folder / key[:2] / f"{key}.parquet"

    def has_cell(self, key: str) -> bool:
        """Whether the part of a cell is there; it appears whole or not at all."""
        return self.cell_path(key).is_file()

    def cell_size(self, key: str) -> int | None:
        """Return the bytes of a cell's part, None if it is not there."""
        return file_size(self.cell_path(key))

    def cell_sizes(self) -> dict[str, int]:
        """Return the bytes of every part by its cell's key, from one listing."""
        return self._sizes("cells")

    def _sizes(self, folder: str) -> dict[str, int]:
        names = (
            (name.rpartition("/")[2].removesuffix(".parquet"), size)
            for name, size in list_files(self.root / folder)
        )
        return {key: size for key, size in names if _KEY.fullmatch(key)}

    def write_cell(self, key: str, rows: Sequence[dict[str, Any]]) -> Location:
        """Write the rows of a cell as one part, whole or not at all.

        Raises:
            BadPart: the rows do not fit ROW_SCHEMA, a score is not finite, or a row is of another cell.
        """
        if not rows:
            raise BadPart(f"cell {key[:12]}: no rows to write")
        if any(row.get("cell") != key for row in rows):
            raise BadPart(f"cell {key[:12]}: a row carries another cell's key")
        table = _as_table(rows, ROW_SCHEMA, f"cell {key[:12]}")
        _require_numbers(table, f"cell {key[:12]}")
        return _write_table(self.cell_path(key), table)

    def read_cell(self, key: str) -> pa.Table:
        """Read one part, verified against its page checksums, its schema and its key.

        Raises:
            BadPart: missing, damaged, of another schema, holding another cell's rows, or a score that is
                not finite.
        """
        path = self.cell_path(key)
        table = _read_table(path, ROW_SCHEMA)
        if set(table.column("cell").unique().to_pylist()) != {key}:
            raise BadPart(f"{path}: holds rows of another cell; delete the file and run again")
        _require_numbers(table, str(path))
        return table

    def read_cells(self, keys: Iterable[str]) -> pa.Table:
        """Read many parts into one table, in the order of the keys."""
        tables = [self.read_cell(key) for key in keys]
        return pa.concat_tables(tables) if tables else ROW_SCHEMA.empty_table()

    def copy_cell(self, key: str, source: ResultStore) -> bool:
        """Copy a cell's part from another store, and its examples if that has them; True if one was new.

        What is here already and whole stays as it is.

        Raises:
            BadPart: the other store's part is missing or damaged.
        """
        new = False
        if not self._whole(key):
            source.read_cell(key)
            write_whole(self.cell_path(key), source.cell_path(key).read_bytes())
            new = True
        if source.has_examples(key) and not self.has_examples(key):
            source.read_examples(key)
            write_whole(self.examples_path(key), source.examples_path(key).read_bytes())
            new = True
        return new

    def _whole(self, key: str) -> bool:
        try:
            self.read_cell(key)
        except BadPart:
            return False
        return True

    def delete_cell(self, key: str) -> None:
        """Delete a cell's part and its examples; what is not there is no error."""
        for path in (self.cell_path(key), self.examples_path(key)):
            path.unlink(missing_ok=True)

    # Examples --------------------------------------------------------------------------------

    def examples_path(self, key: str) -> Location:
        """Return where the attacked images of a cell are or will be.

        Raises:
            ResultsError: the key is not 64 hexadecimal digits.
        """
        return self._keyed("examples", key)

    def has_examples(self, key: str) -> bool:
        """Whether the attacked images of a cell are there."""
        return self.examples_path(key).is_file()

    def example_sizes(self) -> dict[str, int]:
        """Return the bytes of every cell's attacked images by its key, from one listing."""
        return self._sizes("examples")

    def write_examples(self, key: str, table: pa.Table) -> Location:
        """Write the attacked images of a cell (EXAMPLE_SCHEMA), whole or not at all.

        Raises:
            BadPart: another schema, or a row of another cell.
        """
        if not table.schema.equals(EXAMPLE_SCHEMA) or set(table.column("cell").to_pylist()) != {key}:
            raise BadPart(f"examples of cell {key[:12]}: another schema, or rows of another cell")
        return _write_table(self.examples_path(key), table)

    def read_examples(self, key: str) -> pa.Table:
        """Read the attacked images of a cell, verified as `read_cell` does.

        Raises:
            BadPart: missing, damaged, of another schema, or another cell's.
        """
        path = self.examples_path(key)
        table = _read_table(path, EXAMPLE_SCHEMA)
        if set(table.column("cell").to_pylist()) != {key}:
            raise BadPart(f"{path}: holds examples of another cell; delete the file and run again")
        return table

    # Runs ------------------------------------------------------------------------------------

    def run_folder(self, run: str) -> Location:
        """Return the folder of a run.

        Raises:
            ResultsError: the name could leave the store or is not a plain file name.
        """
        return self.root / "runs" / require_name(run, "a run")

    @contextlib.contextmanager
    def locked_run(self, run: str) -> Iterator[None]:
        """Hold a run while its manifest or tables are read and written again; others wait until it is free.

        The lock goes with the process that holds it, however that ends, and leaves no file. It is taken by
        this class's users, not by its own writers. A URL, Windows and a file system without locks have none:
        there the later of two writers wins.

        Raises:
            ResultsError: a bad name.
            OSError: the folder cannot be made.
        """
        folder = self.run_folder(run)
        if isinstance(folder, RemotePath) or sys.platform == "win32":  # no fcntl there
            yield
            return
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # NFS locks no folders; a write alone is whole all the same
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def list_runs(self) -> list[str]:
        """Return the names of the runs in the store, sorted."""
        ends = "/manifest.json"
        names = (name for name, _ in list_files(self.root / "runs") if name.endswith(ends))
        return sorted(run for run in (name.removesuffix(ends) for name in names) if is_name(run))

    def write_manifest(self, manifest: RunManifest) -> Location:
        """Write a run's manifest, replacing the former one whole.

        Raises:
            BadManifest: it holds NaN or an infinity, which JSON has no word for.
        """
        path = self.run_folder(manifest.run) / "manifest.json"
        try:
            text = _as_json(manifest)
        except ValueError as error:
            raise BadManifest(f"{path}: {error}") from error
        write_whole(path, f"{text}\n".encode())
        return path

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

    def read_run_files(self, run: str) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of the tables of a run, as they are."""
        folder = self.run_folder(run)
        for name, _ in sorted(list_files(folder)):
            if name.endswith(".parquet") and "/" not in name:
                yield name, (folder / name).read_bytes()

    def write_table(
        self, run: str, rows: Sequence[dict[str, Any]], cells: Iterable[str] | None = None
    ) -> Location:
        """Write a run's table of metrics (TABLE_SCHEMA), with a hash of the keys of the cells it is from."""
        table = _as_table(rows, TABLE_SCHEMA, f"run {run}")
        if cells is not None:
            table = table.replace_schema_metadata({**TABLE_SCHEMA.metadata, _CELLS: _hash_keys(cells)})
        return _write_table(self.run_folder(run) / "table.parquet", table)

    def read_table(self, run: str) -> pa.Table:
        """Read a run's table of metrics."""
        return _read_table(self.run_folder(run) / "table.parquet", TABLE_SCHEMA)

    def write_intervals(self, run: str, rows: Sequence[dict[str, Any]]) -> Location:
        """Write a run's reachable intervals (INTERVAL_SCHEMA)."""
        table = _as_table(rows, INTERVAL_SCHEMA, f"run {run}")
        return _write_table(self.run_folder(run) / "intervals.parquet", table)

    def read_intervals(self, run: str) -> pa.Table:
        """Read a run's reachable intervals."""
        return _read_table(self.run_folder(run) / "intervals.parquet", INTERVAL_SCHEMA)

    def write_flags(self, run: str, rows: Sequence[dict[str, Any]]) -> Location:
        """Write a run's what speaks against its numbers (FLAG_SCHEMA)."""
        table = _as_table(rows, FLAG_SCHEMA, f"run {run}")
        return _write_table(self.run_folder(run) / "flags.parquet", table)

    def read_flags(self, run: str) -> pa.Table:
        """Read a run's what speaks against its numbers."""
        return _read_table(self.run_folder(run) / "flags.parquet", FLAG_SCHEMA)

    def write_differences(self, run: str, rows: Sequence[dict[str, Any]]) -> Location:
        """Write a run's paired differences between its models (DIFFERENCE_SCHEMA)."""
        table = _as_table(rows, DIFFERENCE_SCHEMA, f"run {run}")
        return _write_table(self.run_folder(run) / "differences.parquet", table)

    def read_differences(self, run: str) -> pa.Table:
        """Read a run's paired differences between its models."""
        return _read_table(self.run_folder(run) / "differences.parquet", DIFFERENCE_SCHEMA)

    def write_measures(self, run: str, rows: Sequence[dict[str, Any]]) -> Location:
        """Write a run's measures besides the correlations (MEASURE_SCHEMA)."""
        table = _as_table(rows, MEASURE_SCHEMA, f"run {run}")
        return _write_table(self.run_folder(run) / "measures.parquet", table)

    def read_measures(self, run: str) -> pa.Table:
        """Read a run's measures besides the correlations."""
        return _read_table(self.run_folder(run) / "measures.parquet", MEASURE_SCHEMA)

    def write_fits(self, run: str, rows: Sequence[dict[str, Any]]) -> Location:
        """Write a run's logistic fits (FIT_SCHEMA)."""
        table = _as_table(rows, FIT_SCHEMA, f"run {run}")
        return _write_table(self.run_folder(run) / "fits.parquet", table)

    def read_fits(self, run: str) -> pa.Table:
        """Read a run's logistic fits."""
        return _read_table(self.run_folder(run) / "fits.parquet", FIT_SCHEMA)


def is_made_from(table: pa.Table, cells: Iterable[str]) -> bool | None:
    """Whether a run's table, as read, was made from just the cells of these keys; None if it does not say."""
    stated = (table.schema.metadata or {}).get(_CELLS)
    return None if stated is None else bool(stated == _hash_keys(cells))


def _hash_keys(keys: Iterable[str]) -> bytes:
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest().encode()


def _as_json(manifest: RunManifest) -> str:
    """Return a manifest as JSON for people too: a field a line, of the cells a cell a line."""
    fields = manifest.model_dump(mode="json")
    cells = ",\n  ".join(json.dumps(cell, allow_nan=False) for cell in fields.pop("cells"))
    text = json.dumps(fields, indent=1, allow_nan=False)
    return f'{text[:-2]},\n "cells": [\n  {cells}\n ]\n}}'


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema, what: str) -> Path:
    """Write rows as one Parquet file, whole or not at all; `what` names them in messages.

    Raises:
        BadPart: the rows do not fit the schema.
    """
    _write_table(path, _as_table(rows, schema, what))
    return path


def read_parquet(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a Parquet file, verified against its page checksums and the schema.

    Raises:
        BadPart: missing, damaged or of another schema.
    """
    return _read_table(path, schema)


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


def _require_numbers(table: pa.Table, where: str) -> None:
    """Refuse rows of a cell with a label or score that is NaN or infinite: no order exists among those."""
    for name in _SCORES:
        finite = pc.is_finite(table.column(name))
        if not pc.all(finite, min_count=0).as_py():
            row = finite.to_pylist().index(False)
            image = table.column("image_id")[row].as_py()
            raise BadPart(
                f"{where}: {name} of image {image!r} (row {row}) is not finite; delete the file and run again"
            )


def _write_table(path: Location, table: pa.Table) -> Location:
    whole = pa.BufferOutputStream()
    pq.write_table(table, whole, compression="zstd", write_page_checksum=True)
    write_whole(path, whole.getvalue().to_pybytes())
    return path


def _read_table(path: Location, schema: pa.Schema) -> pa.Table:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise BadPart(f"{path}: no such file") from error
    try:
        part = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
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
