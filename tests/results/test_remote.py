"""A store on an object store: an S3 server of this machine, and a file system in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from helpers import s3_server
from iqa_results import EXAMPLE_SCHEMA, BadPart, ResultsError, ResultStore, RunManifest, UnknownRun

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A running server, and credentials it does not look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "anyone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = s3_server.S3Server()
        yield server
        server.shutdown()
        server.server_close()


@pytest.fixture(params=["s3", "memory"])
def url(request: pytest.FixtureRequest) -> str:
    """A folder of its own on either of them."""
    name = uuid.uuid4().hex
    if request.param == "s3":
        where: str = request.getfixturevalue("s3").url(name)
        return where
    return f"memory://lab/{name}"


def test_what_is_written_is_read_by_another_process_of_the_same_store(
    url: str, key: str, rows: Rows, manifest: Callable[..., RunManifest], table_rows: Rows
) -> None:
    """Cells, manifests and tables come back equal through a second object for the same URL."""
    first, second = ResultStore(url), ResultStore(url)
    assert (second.cell_sizes(), second.list_runs(), second.has_cell(key)) == ({}, [], False)
    first.write_cell(key, rows)
    first.write_manifest(manifest())
    first.write_table("first", table_rows)
    assert second.has_cell(key)
    assert second.read_cell(key).to_pylist() == rows
    assert second.list_runs() == ["first"]
    assert second.read_manifest("first") == manifest()
    assert second.read_table("first").to_pylist() == table_rows
    assert second.cell_sizes() == {key: first.cell_size(key)}
    assert f"cells/{key[:2]}/{key}.parquet" in str(first.cell_path(key))


def test_what_is_not_there_is_said_as_on_a_disk(url: str, key: str) -> None:
    """A missing part and a missing run are the same errors everywhere."""
    store = ResultStore(url)
    with pytest.raises(BadPart, match="no such file"):
        store.read_cell(key)
    with pytest.raises(UnknownRun, match="runs there: none"):
        store.read_manifest("first")
    assert store.cell_size(key) is None
    store.delete_cell(key)


def test_examples_and_copies(url: str, key: str, rows: Rows, tmp_path: Path) -> None:
    """Kept images are stored there too; a cell goes from a disk to the object store and back."""
    store, local = ResultStore(url), ResultStore(tmp_path)
    local.write_cell(key, rows)
    row = {
        "cell": key, "image_id": "a", "image": 0, "height": 1, "width": 1, "score": 0.5,
        "restart": 0, "step": 1,
        "uses": [{"place": 0, "objective": "mse", "steps": 1, "loss": 0.1}], "epsilon": 0.1,
        "nearest": b"\0\0\0", "pixels": b"0123456789ab",
    }  # fmt: skip
    local.write_examples(key, EXAMPLE_SCHEMA.empty_table().from_pylist([row], schema=EXAMPLE_SCHEMA))
    assert store.copy_cell(key, local)
    assert not store.copy_cell(key, local)
    assert store.read_cell(key).equals(local.read_cell(key))
    assert store.read_examples(key).to_pylist() == [row]
    assert store.example_sizes() == local.example_sizes()
    store.delete_cell(key)
    assert (store.has_cell(key), store.has_examples(key)) == (False, False)


def test_two_writers_of_one_cell_leave_one_of_them_whole(url: str, key: str, rows: Rows) -> None:
    """Written again and again by two at once and read meanwhile, a part is always one writer's, whole."""
    versions = [[{**row, "adv_score": float(writer)} for row in rows] for writer in range(2)]
    stores = [ResultStore(url) for _ in range(3)]
    stores[0].write_cell(key, versions[0])
    with ThreadPoolExecutor(2) as pool:
        writers = [
            pool.submit(lambda n=n: [stores[n].write_cell(key, versions[n]) for _ in range(15)])
            for n in range(2)
        ]
        while not all(writer.done() for writer in writers):
            assert stores[2].read_cell(key).to_pylist() in versions
    for writer in writers:
        writer.result()


def test_a_place_nobody_can_open_is_refused() -> None:
    """An unknown scheme, a bucket without a folder, and no word are told before anything is computed."""
    with pytest.raises(ResultsError, match="store '': name a folder or a URL"):
        ResultStore("")  # what an unset variable leaves: its files would fill the working folder
    with pytest.raises(ResultsError, match="store 'nowhere://x/y'"):
        ResultStore("nowhere://x/y")
    with pytest.raises(ResultsError, match="name a folder"):
        ResultStore("memory://")
