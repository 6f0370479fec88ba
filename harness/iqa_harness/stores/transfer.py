"""From one store to another: export as one file, merge of another machine's runs."""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pyarrow.parquet as pq

from iqa_harness.errors import RunError
from iqa_harness.machine.scratch import scratch_folder
from iqa_harness.running.ledger import refreshed
from iqa_harness.running.merge import joined
from iqa_reports.formats.csv_table import write_csv
from iqa_results import (
    ResultStore,
    RunManifest,
    manifest_bytes,
    whole_file,
)


def export_run(store: ResultStore, run: str, out: Path) -> int:
    """Write the rows of a run as one file and return their number.

    Args:
        store: where the run is.
        run: its name.
        out: ``.parquet`` or ``.csv`` for one table of all rows (in CSV a text that begins like a formula has
            an apostrophe before it); ``.zip`` for a store of its own, with manifest, tables, parts and kept
            images, which `merge_run` reads.

    Raises:
        RunError: another ending, or no cell of the run is stored.
        BadPart: a part is damaged.
    """
    manifest = refreshed(store, store.read_manifest(run))
    keys = [cell.key for cell in manifest.cells if cell.status == "done"]
    if not keys:
        raise RunError(f"run {run!r} has no stored cell to export")
    if out.suffix not in (".parquet", ".csv", ".zip"):
        raise RunError(f"{out}: the ending says what to write: .parquet, .csv or .zip")
    with whole_file(out) as part:
        if out.suffix == ".zip":
            return _export_zip(store, manifest, keys, part)
        return _export_table(store, keys, part, out.suffix)


def _export_table(store: ResultStore, keys: Sequence[str], out: Path, suffix: str) -> int:
    """Write cell after cell, so that a run of any size fits."""
    rows = 0
    first = store.read_cell(keys[0])
    if suffix == ".parquet":
        with pq.ParquetWriter(out, first.schema, compression="zstd", write_page_checksum=True) as writer:
            for key in keys:
                part = store.read_cell(key)
                writer.write_table(part)
                rows += part.num_rows
        return rows
    with out.open("w", encoding="utf-8", newline="") as file:
        write_csv(file, [first.schema.names])
        for key in keys:
            part = store.read_cell(key)
            write_csv(file, zip(*part.to_pydict().values(), strict=True))
            rows += part.num_rows
    return rows


def _export_zip(store: ResultStore, manifest: RunManifest, keys: Sequence[str], out: Path) -> int:
    rows = 0
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # Parquet is compressed already
        folder = f"runs/{manifest.run}"
        archive.writestr(f"{folder}/manifest.json", manifest_bytes(manifest))
        for name, content in store.read_run_files(manifest.run):
            archive.writestr(f"{folder}/{name}", content)
        for key in keys:
            rows += store.read_cell(key).num_rows
            archive.writestr(f"cells/{key[:2]}/{key}.parquet", store.cell_path(key).read_bytes())
            if store.has_examples(key):
                archive.writestr(f"examples/{key[:2]}/{key}.parquet", store.examples_path(key).read_bytes())
    return rows


@contextmanager
def open_source(source: str, target: ResultStore | None = None) -> Iterator[ResultStore]:
    """Open a store to merge from: a folder, a URL, or a .zip that `export_run` wrote.

    Args:
        source: what the user wrote.
        target: store below which an archive is unpacked; None for the system's own place.

    Raises:
        RunError: no such store, none with a run in it, or an archive that is damaged, encrypted, far larger
            inside than it is, or has a path that leads out of it.
    """
    path = Path(source)
    if path.suffix == ".zip" and path.is_file():
        with scratch_folder(target and target.root) as folder:
            _unpack(path, str(folder))
            yield _with_runs(ResultStore(folder), source)
        return
    store = ResultStore(source)
    if isinstance(store.root, Path) and not store.root.is_dir():
        what = (
            "not a folder, and not a .zip of `runs export`"
            if store.root.exists()
            else "no such file or folder"
        )
        raise RunError(f"{source}: {what}")
    yield _with_runs(store, source)


_NEEDED = re.compile(r"runs/[^/]+/manifest\.json|(cells|examples)/[0-9a-f]{2}/[0-9a-f]{64}\.parquet")
_ROOM, _GROWTH = 64 << 20, 10
"""Bytes that any archive may hold, and how many times its size a larger one: parts are compressed already."""
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError)
"""What `zipfile` raises for an archive that is damaged, or packed as it cannot unpack."""


def _unpack(path: Path, folder: str) -> None:
    """Unpack manifests, cells and kept images; all else in an archive is of no use, and stays in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            wanted = []
            for info in archive.infolist():
                name = info.filename.removeprefix("./")
                parts = PurePosixPath(name).parts
                if name.startswith("/") or ".." in parts or "\\" in name or parts[:1] not in _TOP:
                    raise RunError(f"{path}: {info.filename!r} is no part of a store")
                if _NEEDED.fullmatch(name):
                    wanted.append(info)
            # More than the stated size is never unpacked: a false one is a damaged member.
            size = sum(info.file_size for info in wanted)
            if size > max(_ROOM, _GROWTH * path.stat().st_size):
                raise RunError(f"{path}: {size:,} bytes packed into far fewer: no archive of `runs export`")
            if any(info.flag_bits & 1 for info in wanted):
                raise RunError(f"{path}: is encrypted; unpack it and merge the folder")
            for info in wanted:
                archive.extract(info, folder)
    except _BROKEN as error:
        raise RunError(f"{path}: not a whole zip file ({error})") from error


def _with_runs(store: ResultStore, source: str) -> ResultStore:
    if not store.list_runs():
        raise RunError(f"no run in {source}: not a store, or an empty one")
    return store


_TOP = ((), ("cells",), ("examples",), ("runs",))
"""How paths in an archive may begin; `./` is the folder itself."""


def merge_run(target: ResultStore, source: ResultStore, run: str) -> tuple[RunManifest, int]:
    """Take a run of another store into this one; return its manifest there and the number of new cells.

    A run of that name that is here already must be of the same suite, split and images (`--limit` and
    `--image` included), and equal models must have equal weights; models and cells of both are then in it.

    Raises:
        RunError: the two runs do not fit together.
        BadPart: a part of the other store is damaged.
    """
    theirs = refreshed(source, source.read_manifest(run))
    # The manifest goes first, or the cells are no run's until it comes: `runs gc` would delete them.
    _write_joined(target, theirs)
    new = sum(target.copy_cell(cell.key, source) for cell in theirs.cells if cell.status == "done")
    return _write_joined(target, theirs), new


def _write_joined(target: ResultStore, theirs: RunManifest) -> RunManifest:
    # A process that computes this run here writes its manifest, too.
    with target.locked_run(theirs.run):
        manifest = theirs
        if theirs.run in target.list_runs():
            manifest = joined(target.read_manifest(theirs.run), theirs)
        manifest = refreshed(target, manifest)
        target.write_manifest(manifest)
    return manifest
