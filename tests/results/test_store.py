"""Parquet parts: equal after a round trip, refused when anything about them is wrong."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import iqa_results.storage
from iqa_results import (
    ROW_SCHEMA,
    RUN_TABLES,
    BadPart,
    ResultsError,
    ResultStore,
    is_made_from,
    whole_file,
    write_whole,
)

Rows = list[dict[str, Any]]


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """An empty store."""
    return ResultStore(tmp_path / "store")


def test_a_store_creates_nothing_until_it_writes(store: ResultStore) -> None:
    """Looking for cells and runs in a store that is not there leaves no folder behind."""
    assert not store.has_cell("0" * 64)
    assert store.list_runs() == []
    assert not store.root.exists()


def test_a_cell_is_equal_after_a_round_trip(store: ResultStore, key: str, rows: Rows) -> None:
    """Rows read back are the rows written, value for value and null for null."""
    path = store.write_cell(key, rows)
    assert path == store.cell_path(key)
    assert path.relative_to(store.root).as_posix() == f"cells/{key[:2]}/{key}.parquet"
    assert store.has_cell(key)
    table = store.read_cell(key)
    assert table.to_pylist() == rows
    assert table.schema.equals(ROW_SCHEMA, check_metadata=True)


def test_a_part_documents_its_own_columns(store: ResultStore, key: str, rows: Rows) -> None:
    """The file alone, read with pyarrow, says what its columns mean."""
    schema = pq.read_schema(store.write_cell(key, rows))
    assert schema.field("mos").metadata[b"doc"].startswith(b"label on the set's own scale")


def test_tables_and_intervals_are_equal_after_a_round_trip(
    store: ResultStore, table_rows: Rows, interval_rows: Rows
) -> None:
    """A run's metrics and reachable intervals read back as written."""
    store.write_table("first", table_rows)
    store.write_table("first", interval_rows, "intervals")
    assert store.read_table("first").to_pylist() == table_rows
    assert store.read_table("first", "intervals").to_pylist() == interval_rows


def test_a_table_says_which_cells_it_is_of(store: ResultStore, table_rows: Rows) -> None:
    """Their keys in any order, no fewer and no more; one written without them says nothing."""
    store.write_table("first", table_rows, cells=["a" * 64, "b" * 64])
    table = store.read_table("first")
    assert table.to_pylist() == table_rows
    assert is_made_from(table, ["b" * 64, "a" * 64]) is True
    assert is_made_from(table, ["a" * 64]) is False
    assert is_made_from(table, ["a" * 64, "b" * 64, "c" * 64]) is False
    store.write_table("first", table_rows)
    assert is_made_from(store.read_table("first"), ["a" * 64]) is None


@pytest.mark.parametrize("name", RUN_TABLES)
def test_every_table_is_equal_after_a_round_trip(store: ResultStore, name: str) -> None:
    """Mappings, records and an Arrow table are written alike and read back as written, nulls included."""
    schema = RUN_TABLES[name]
    values = {"string": "x", "bool": True, "int64": 1, "double": 0.5}
    whole = {c.name: values[str(c.type)] for c in schema.columns}
    rows = [whole, whole | {c.name: None for c in schema.columns if c.nullable}]
    for given in (rows, [schema.record(**row) for row in rows], pa.Table.from_pylist(rows, schema.arrow)):
        store.write_table("first", given, name)
        found = store.read_table("first", name)
        assert found.to_pylist() == rows
        assert schema.rows(found) == [schema.record(**row) for row in rows]
        assert found.schema.equals(schema.arrow, check_metadata=True)
    assert store.has_table("first", name)


def test_a_table_that_no_run_has_is_refused(store: ResultStore) -> None:
    """Another name is no path, and the message says which there are."""
    for use in (store.read_table, store.has_table):
        with pytest.raises(ResultsError, match=r"no table '../x'; there are table, intervals"):
            use("first", "../x")
    with pytest.raises(BadPart, match=r"other columns than flags.parquet has"):
        store.write_table("first", RUN_TABLES["fits"].arrow.empty_table(), "flags")
    with pytest.raises(BadPart, match="run first, flags: columns missing"):
        store.write_table("first", [{"model": "m"}], "flags")


def test_many_cells_are_read_in_the_order_asked(store: ResultStore, rows: Rows) -> None:
    """The table of several cells follows the order of the keys; of no cells it is empty."""
    keys = ["a" * 64, "b" * 64]
    for key in keys:
        store.write_cell(key, [{**rows[0], "cell": key}])
    assert store.read_cells(reversed(keys)).column("cell").to_pylist() == ["b" * 64, "a" * 64]
    assert store.read_cells([]).num_rows == 0
    assert store.read_cells([]).schema == ROW_SCHEMA
    some = ["image_id", "adv_score", "level"]
    few = store.read_cells(keys, some)
    assert few.column_names == some
    assert few.to_pylist() == store.read_cells(keys).select(some).to_pylist()
    assert store.read_cells([], some).column_names == some


# Damage ---------------------------------------------------------------------------------------------


def test_a_missing_part_is_a_bad_part(store: ResultStore, key: str) -> None:
    """Reading a cell that is not there names the file."""
    with pytest.raises(BadPart, match="no such file"):
        store.read_cell(key)


@pytest.mark.parametrize("keep", [0, 1, 4, 100, -1, -9])
def test_a_truncated_part_is_refused(store: ResultStore, key: str, rows: Rows, keep: int) -> None:
    """A part cut anywhere is damaged, never a shorter table."""
    path = store.write_cell(key, rows)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadPart, match="delete the file and run again"):
        store.read_cell(key)


def test_a_flipped_byte_never_gives_other_rows(store: ResultStore, key: str, rows: Rows) -> None:
    """Whichever byte is flipped, the part is refused or its rows are still the ones written."""
    path = store.write_cell(key, rows)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 29):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            table = store.read_cell(key)
        except BadPart:
            refused += 1
        else:
            assert table.to_pylist() == rows, f"byte {place}"
    assert refused > 100


def test_a_damaged_row_count_is_refused(store: ResultStore, key: str, rows: Rows) -> None:
    """No count in the footer, which has no checksum of its own, can make a part shorter in silence."""
    path = store.write_cell(key, rows)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    counted = b"\x16" + bytes([2 * len(rows)])  # how Thrift writes an i64 field of this value
    places = [i + 1 for i in range(footer, len(whole)) if whole[i : i + 2] == counted]
    complaints = set()
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x08
        path.write_bytes(damaged)
        try:
            assert store.read_cell(key).to_pylist() == rows
        except BadPart as error:
            complaints.add(str(error).partition("damaged ")[2])
    assert any("row counts disagree" in complaint for complaint in complaints)


def test_every_byte_of_a_page_is_under_its_checksum(store: ResultStore, key: str, rows: Rows) -> None:
    """A flipped byte in the compressed content of any page of a column is refused."""
    path = store.write_cell(key, rows)
    whole = path.read_bytes()
    meta = pq.ParquetFile(path).metadata.row_group(0)
    chunk = next(
        meta.column(i) for i in range(meta.num_columns) if meta.column(i).path_in_schema == "adv_score"
    )
    # The last bytes of a chunk are the end of its last page; the page's header is far shorter than the rest.
    end = chunk.dictionary_page_offset + chunk.total_compressed_size
    for place in range(end - 5, end):
        damaged = bytearray(whole)
        damaged[place] ^= 0x01
        path.write_bytes(damaged)
        with pytest.raises(BadPart, match="damaged"):
            store.read_cell(key)


def test_a_part_that_is_not_parquet_is_refused(store: ResultStore, key: str, rows: Rows) -> None:
    """Text where a part should be is damage."""
    store.write_cell(key, rows).write_text("hello")
    with pytest.raises(BadPart, match="damaged"):
        store.read_cell(key)


@pytest.mark.parametrize("metadata", [None, {"schema_version": "0"}])
def test_a_part_of_another_schema_version_is_refused(
    store: ResultStore, key: str, rows: Rows, metadata: dict[str, str] | None
) -> None:
    """Equal columns of another version, or of none, are not read: their meaning may differ."""
    path = store.write_cell(key, rows)
    pq.write_table(store.read_cell(key).replace_schema_metadata(metadata), path)
    with pytest.raises(BadPart, match="another version"):
        store.read_cell(key)


def test_a_part_with_other_columns_is_refused(store: ResultStore, key: str, rows: Rows) -> None:
    """A part that lacks a column is of another version."""
    path = store.write_cell(key, rows)
    pq.write_table(store.read_cell(key).drop_columns(["mos"]), path)
    with pytest.raises(BadPart, match="another version"):
        store.read_cell(key)


def test_a_part_under_another_key_is_refused(store: ResultStore, key: str, rows: Rows) -> None:
    """A part renamed to another cell's key is not taken for that cell."""
    other = "f" * 64
    target = store.cell_path(other)
    target.parent.mkdir(parents=True)
    store.write_cell(key, rows).rename(target)
    with pytest.raises(BadPart, match="rows of another cell"):
        store.read_cell(other)


# Rows that do not fit -------------------------------------------------------------------------------


def _refused(store: ResultStore, key: str, rows: Rows, words: str) -> None:
    with pytest.raises(BadPart, match=words):
        store.write_cell(key, rows)
    assert not store.has_cell(key)


def test_rows_of_another_cell_are_refused(store: ResultStore, key: str, rows: Rows) -> None:
    """A row that carries another key is not written."""
    _refused(store, key, [*rows, {**rows[0], "cell": "f" * 64}], "another cell's key")


def test_no_rows_are_refused(store: ResultStore, key: str) -> None:
    """A cell without rows is not a cell that is done."""
    _refused(store, key, [], "no rows")


def test_null_where_it_may_not_be_is_refused(store: ResultStore, key: str, rows: Rows) -> None:
    """A null in a column that has none names the column."""
    _refused(store, key, [*rows, {**rows[0], "adv_score": None}], "'adv_score' holds null")


def test_a_missing_column_is_refused(store: ResultStore, key: str, rows: Rows) -> None:
    """A row without a column is not filled with null."""
    _refused(store, key, [{k: v for k, v in rows[0].items() if k != "loss"}], r"missing \['loss'\]")


def test_an_unknown_column_is_refused(store: ResultStore, key: str, rows: Rows) -> None:
    """A column the schema does not know is not dropped in silence."""
    _refused(store, key, [{**rows[0], "extra": 1}], r"unknown \['extra'\]")


@pytest.mark.parametrize(
    ("column", "value"), [("model", 3), ("steps", "ten"), ("position", 2**70), ("image_id", "\ud800")]
)
def test_a_value_of_another_type_is_refused(
    store: ResultStore, key: str, rows: Rows, column: str, value: object
) -> None:
    """A value its column cannot hold is refused before anything is written."""
    _refused(store, key, [{**rows[0], column: value}], key[:12])


# Names that could leave the store -------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "../x", "A" * 64, "0" * 63, "0" * 64 + "\n", "0" * 62 + "/x"])
def test_a_key_that_is_no_hash_is_refused(store: ResultStore, key: str) -> None:
    """Only 64 hexadecimal digits become a path."""
    with pytest.raises(ResultsError, match="64 hexadecimal digits"):
        store.cell_path(key)


@pytest.mark.parametrize(
    "run", ["", ".", "..", "../x", "a/b", "a\\b", "/x", ".hidden", "a\n", "é", "a" * 101]
)
def test_a_run_name_that_is_no_file_name_is_refused(store: ResultStore, run: str) -> None:
    """A run's name cannot lead out of the store, hide, or be a path."""
    for use in (store.run_folder, store.read_table, store.read_manifest):
        with pytest.raises(ResultsError, match="a run's name"):
            use(run)


# Whole or not at all --------------------------------------------------------------------------------


def _files(store: ResultStore) -> list[Path]:
    return sorted(p for p in store.root.rglob("*") if p.is_file())


def test_a_failed_write_leaves_no_file(
    store: ResultStore, key: str, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error half-way through writing leaves neither a part nor a fragment."""
    _fail_half_way(monkeypatch)
    with pytest.raises(OSError, match="disk full"):
        store.write_cell(key, rows)
    assert _files(store) == []
    assert not store.has_cell(key)


def test_a_failed_rewrite_leaves_the_old_part(
    store: ResultStore, key: str, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while replacing a part leaves the former one readable and alone."""
    path = store.write_cell(key, rows)
    _fail_half_way(monkeypatch)
    with pytest.raises(OSError, match="disk full"):
        store.write_cell(key, rows[:1])
    assert _files(store) == [path]
    assert store.read_cell(key).to_pylist() == rows


def _fail_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def flush(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(iqa_results.storage.os, "fsync", flush)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without room")
def test_a_full_disk_is_named_with_the_path(tmp_path: Path) -> None:
    """A write for which there is no room names what was to be written, and keeps what was there."""
    path = tmp_path / "x.json"
    write_whole(path, b"old")
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"), whole_file(path) as part:
        part.symlink_to("/dev/full")
        part.write_bytes(b"new")
    assert (path.read_bytes(), [file.name for file in tmp_path.iterdir()]) == (b"old", ["x.json"])


def test_a_write_that_cannot_be_tidied_names_its_file_all_the_same(tmp_path: Path) -> None:
    """As on a disk that became read-only: said is the file, not what was to become it."""
    path = tmp_path / "folder" / "x.json"
    with pytest.raises(OSError, match=f"'{path}'"), whole_file(path) as part:
        path.parent.rmdir()
        path.parent.write_bytes(b"")
        part.write_bytes(b"new")


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    """Not the name of the fragment, which is gone."""
    (tmp_path / "x.json").mkdir()
    with pytest.raises(IsADirectoryError, match=rf"'{tmp_path}/x.json'$"):
        write_whole(tmp_path / "x.json", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_fragment_left_by_a_kill_is_no_cell(store: ResultStore, key: str, rows: Rows) -> None:
    """What a killed writer left beside the part is neither found nor in the way."""
    path = store.cell_path(key)
    path.parent.mkdir(parents=True)
    path.with_name(f".{path.name}.0000.part").write_bytes(b"PAR1 half a part")
    assert not store.has_cell(key)
    store.write_cell(key, rows)
    assert store.read_cell(key).num_rows == len(rows)


def test_two_writers_use_different_fragments(
    store: ResultStore, key: str, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two attempts at one cell never write into each other's file."""
    seen: list[Path] = []
    replace = Path.replace

    def spy(part: Path, target: Path) -> Path:
        seen.append(part)
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", spy)
    for _ in range(3):
        store.write_cell(key, rows)
    assert all(a != b for a, b in itertools.combinations(seen, 2))
    assert _files(store) == [store.cell_path(key)]


_ADDER = """
import sys
from iqa_results import ResultStore
store = ResultStore(sys.argv[1])
for _ in range(40):
    with store.locked_run("r"):
        file = store.run_folder("r") / "count"
        count = int(file.read_text()) if file.exists() else 0
        file.write_text(str(count + 1))
"""


def test_two_processes_at_one_run_lose_nothing(tmp_path):
    """What is read and written again while a run is held counts every time; the lock leaves no file."""
    adders = [subprocess.Popen([sys.executable, "-c", _ADDER, str(tmp_path)]) for _ in range(2)]
    assert [adder.wait(60) for adder in adders] == [0, 0]
    folder = ResultStore(tmp_path).run_folder("r")
    assert (folder / "count").read_text() == "80"
    assert [file.name for file in folder.iterdir()] == ["count"]
