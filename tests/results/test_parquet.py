"""Parquet files that are not ours, or not any more: refused before they cost anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_results import BadPart, OtherVersion, ResultStore, TableSchema, read_parquet, write_parquet


class Note(NamedTuple):
    """A table of the tests."""

    word: Annotated[str, "some text"]
    value: Annotated[float, "a number"]


NOTE = TableSchema(Note, {"schema_version": "2"})


def test_a_table_is_equal_after_a_round_trip(tmp_path: Path) -> None:
    """Texts of any length and script, none, and twice the same; the folder is made."""
    table = NOTE.to_table([Note("", 0.5), Note("é" * 999, -0.0), Note("", 1e300)])
    path = write_parquet(tmp_path / "new" / "x.parquet", table)
    assert read_parquet(path, NOTE.arrow).equals(table, check_metadata=True)


REFUSED = """
import sys
from pathlib import Path
import pyarrow as pa
from iqa_results import BadPart, read_parquet
schema = pa.schema([("word", pa.string()), ("value", pa.float64())], metadata={"schema_version": "2"})
schema = pa.schema([f.with_nullable(False) for f in schema], metadata=schema.metadata)
for path in sys.argv[1:]:
    try:
        read_parquet(Path(path), schema)
    except BadPart as error:
        print(pa.default_memory_pool().max_memory(), error)
"""

FAR_MORE = {
    "many rows": (9_000_000, "x", "bytes in memory: no file of iqa-harness"),
    "one long text in many rows": (400, "x" * 500_000, "bytes in memory: no file of iqa-harness"),
    "other columns": (9_000_000, None, "another version"),
}


def test_a_small_file_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    """A hundred megabytes in some kilobytes are refused, in a process of their own, for a few megabytes."""
    paths = []
    for name, (rows, word, _) in FAR_MORE.items():
        path, once = tmp_path / f"{name}.parquet", pa.array(np.zeros(rows, np.int8))
        values = pa.DictionaryArray.from_arrays(once, pa.array([0.5])).cast(pa.float64())
        if word is None:
            table = pa.table({"other": values})
        else:
            texts = pa.DictionaryArray.from_arrays(once, pa.array([word])).cast(pa.string())
            table = pa.table([texts, values], schema=NOTE.arrow)
        pq.write_table(table, path, compression="zstd", row_group_size=rows)
        assert path.stat().st_size < 600_000
        assert table.nbytes > 70_000_000
        paths.append(str(path))
    done = subprocess.run([sys.executable, "-c", REFUSED, *paths], capture_output=True, text=True, check=True)
    for line, (*_, words) in zip(done.stdout.splitlines(), FAR_MORE.values(), strict=True):
        taken, _, message = line.partition(" ")
        assert words in message
        assert int(taken) < 10_000_000


@pytest.mark.parametrize(("version", "kind"), [("1", OtherVersion), ("3", OtherVersion), (None, BadPart)])
def test_another_version_is_told_from_damage(tmp_path: Path, version: str | None, kind: type) -> None:
    """A whole file of another version is that version's; one without a version is nobody's."""
    metadata = None if version is None else {"schema_version": version}
    table = NOTE.to_table([Note("x", 0.5)]).replace_schema_metadata(metadata)
    path = write_parquet(tmp_path / "x.parquet", table)
    with pytest.raises(kind, match="another version") as caught:
        read_parquet(path, NOTE.arrow)
    assert type(caught.value) is kind


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs a list of this process's threads")
def test_reading_starts_no_thread(tmp_path: Path, key: str, rows: list[dict[str, Any]]) -> None:
    """A thread of a pool that frees Python's bytes while the interpreter ends aborts the process."""
    ResultStore(tmp_path).write_cell(key, rows)
    code = (
        "import os, sys\nfrom iqa_results import ResultStore\nstore = ResultStore(sys.argv[1])\n"
        "before = os.listdir('/proc/self/task')\nstore.read_cell(sys.argv[2])\n"
        "assert os.listdir('/proc/self/task') == before"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), key], check=True, env={**os.environ})
