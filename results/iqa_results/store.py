"""A store: Parquet parts and manifests, each written whole or not at all, on disk or on an object store.

Layout under the store's root::

    cells/<first two digits of key>/<key>.parquet   one part a cell (ROW_SCHEMA)
    examples/<first two digits of key>/<key>.parquet  attacked images of a cell (EXAMPLE_SCHEMA), if kept
    runs/<run>/manifest.json                        RunManifest
    runs/<run>/<name>.parquet                       a table of the run, one of STORED_TABLES

Cells belong to no run: two runs that need the same cell share its part.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from iqa_results.errors import BadPart, ResultsError, UnknownRun
from iqa_results.manifest import RunManifest
from iqa_results.manifest_file import manifest_bytes, parse_manifest
from iqa_results.parquet import EXAMPLE_ROOM, read_parquet, write_parquet
from iqa_results.schema import EXAMPLE_SCHEMA, ROW, ROW_SCHEMA, STORED_TABLES
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

"""Everything beside the manifest that may lie in a run's folder: tables, and rows that no cell holds."""
_KEY = re.compile(r"[0-9a-f]{64}")
_CELLS = b"cells_sha256"
_MAKER = b"maker"
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
        table = ROW.to_table(rows, f"cell {key[:12]}")
        _require_numbers(table, f"cell {key[:12]}")
        return write_parquet(self.cell_path(key), table)

    def read_cell(self, key: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one part, verified against its page checksums, its schema and its key.

        Args:
            key: the cell's.
            columns: read these only, texts as dictionaries: much faster.

        Raises:
            BadPart: missing, damaged, of another schema, holding another cell's rows, or a score that is
                not finite.
        """
        path = self.cell_path(key)
        needed = None if columns is None else list(dict.fromkeys((*columns, "cell", "image_id", *_SCORES)))
        table = read_parquet(path, ROW_SCHEMA, columns=needed)
        if table.column("cell").unique().to_pylist() != [key]:
            raise BadPart(f"{path}: holds rows of another cell; delete the file and run again")
        _require_numbers(table, str(path))
        return table if columns is None else table.select(columns)

    def read_cells(self, keys: Iterable[str], columns: Sequence[str] | None = None) -> pa.Table:
        """Read many parts into one table, in the order of the keys; `columns` as of `read_cell`."""
        tables = [self.read_cell(key, columns) for key in keys]
        if tables:
            return pa.concat_tables(tables)
        return ROW_SCHEMA.empty_table() if columns is None else ROW_SCHEMA.empty_table().select(columns)

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
        return write_parquet(self.examples_path(key), table)

    def read_examples(self, key: str) -> pa.Table:
        """Read the attacked images of a cell, verified as `read_cell` does.

        Raises:
            BadPart: missing, damaged, of another schema, or another cell's.
        """
        path = self.examples_path(key)
        table = read_parquet(path, EXAMPLE_SCHEMA, room=EXAMPLE_ROOM)
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
            BadManifest: it holds NaN, an infinity or text that is not UTF-8, which no reader would take.
        """
        path = self.run_folder(manifest.run) / "manifest.json"
        write_whole(path, manifest_bytes(manifest, str(path)))
        return path

    def read_manifest(self, run: str) -> RunManifest:
        """Read a run's manifest.

        Raises:
            UnknownRun: no such run in this store.
            BadManifest: the file is damaged, changed by hand, or of another format.
        """
        path = self.run_folder(run) / "manifest.json"
        if not path.is_file():
            known = ", ".join(self.list_runs()) or "none"
            raise UnknownRun(f"no run {run!r} in {self.root}; runs there: {known}")
        return parse_manifest(path.read_bytes(), str(path))

    def read_run_files(self, run: str) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of the tables of a run, as they are."""
        folder = self.run_folder(run)
        for name, _ in sorted(list_files(folder)):
            if name.endswith(".parquet") and "/" not in name:
                yield name, (folder / name).read_bytes()

    def table_path(self, run: str, name: str = "table") -> Location:
        """Return where a table of a run (one of STORED_TABLES) is or will be."""
        if name not in STORED_TABLES:
            raise ResultsError(f"a run has no table {name!r}; there are {', '.join(STORED_TABLES)}")
        return self.run_folder(run) / f"{name}.parquet"

    def write_table(
        self,
        run: str,
        rows: Iterable[Any],
        name: str = "table",
        *,
        cells: Iterable[str] | None = None,
        maker: str = "",
    ) -> Location:
        """Write a table of a run, whole or not at all.

        Args:
            run: its name.
            rows: an Arrow table, or records or mappings of the columns' names.
            name: one of STORED_TABLES; the table of metrics if left out.
            cells: keys of the cells it is made from, of which it keeps a hash.
            maker: hash of what made it from them.

        Raises:
            BadPart: the rows do not fit the table's columns.
        """
        path, schema = self.table_path(run, name), STORED_TABLES[name]
        table = rows if isinstance(rows, pa.Table) else schema.to_table(rows, f"run {run}, {name}")
        if not table.schema.equals(schema.arrow):
            raise BadPart(f"run {run}, {name}: other columns than {name}.parquet has")
        metadata = schema.arrow.metadata | ({} if cells is None else {_CELLS: _hash_keys(cells)})
        metadata |= {_MAKER: maker.encode()} if maker else {}
        return write_parquet(path, table.replace_schema_metadata(metadata))

    def has_table(self, run: str, name: str = "table") -> bool:
        """Whether a table of a run is there."""
        return self.table_path(run, name).is_file()

    def read_table(self, run: str, name: str = "table") -> pa.Table:
        """Read a table of a run.

        Raises:
            BadPart: missing, damaged or of another schema.
        """
        return read_parquet(self.table_path(run, name), STORED_TABLES[name].arrow)

    def read_rows(self, run: str, name: str) -> list[Any]:
        """Return the records of a table of a run, none if it is not there; raises as `read_table`."""
        return STORED_TABLES[name].rows(self.read_table(run, name)) if self.has_table(run, name) else []


def is_made_from(table: pa.Table, cells: Iterable[str]) -> bool | None:
    """Whether a run's table, as read, was made from just the cells of these keys; None if it does not say."""
    stated = (table.schema.metadata or {}).get(_CELLS)
    return None if stated is None else bool(stated == _hash_keys(cells))


def maker_of(table: pa.Table) -> str:
    """Return the hash of what made a run's table, as read; empty if it does not say."""
    return str((table.schema.metadata or {}).get(_MAKER, b"").decode())


def _hash_keys(keys: Iterable[str]) -> bytes:
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest().encode()


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
