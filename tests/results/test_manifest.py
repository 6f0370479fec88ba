"""Manifests: equal after a round trip, and damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from iqa_results import BadManifest, ModelRecord, ResultStore, RunManifest, UnknownRun

Make = Callable[..., RunManifest]


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """An empty store."""
    return ResultStore(tmp_path)


def test_a_manifest_is_equal_after_a_round_trip(store: ResultStore, manifest: Make) -> None:
    """What is read is what was written, tuples, None and all."""
    made = manifest()
    store.write_manifest(made)
    assert store.read_manifest("first") == made


def test_a_manifest_is_replaced_whole(store: ResultStore, manifest: Make) -> None:
    """Writing a run's manifest again leaves the new one and nothing else."""
    store.write_manifest(manifest(status="running", ended=None))
    path = store.write_manifest(manifest())
    assert store.read_manifest("first").status == "complete"
    assert list(path.parent.iterdir()) == [path]


def test_runs_are_listed_by_their_manifest(store: ResultStore, manifest: Make) -> None:
    """A folder without a manifest is no run; names come sorted."""
    for run in ("second", "first"):
        store.write_manifest(manifest(run=run))
    (store.root / "runs" / "empty").mkdir()
    assert store.list_runs() == ["first", "second"]


def test_an_unknown_run_names_the_known_ones(store: ResultStore, manifest: Make) -> None:
    """The message for a run that is not there says which are."""
    with pytest.raises(UnknownRun, match="runs there: none"):
        store.read_manifest("frist")
    store.write_manifest(manifest())
    with pytest.raises(UnknownRun, match=r"no run 'frist' .*runs there: first"):
        store.read_manifest("frist")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda m: m.pop("seed"), "seed: "),
        (lambda m: m.update(colour="red"), "colour: "),
        (lambda m: m.update(format=2), "format: "),
        (lambda m: m.update(status="finished"), "status: "),
        (lambda m: m["data"].update(label="opinion"), r"data\.label: "),
        (lambda m: m["cells"][0].update(count="many"), r"cells\.0\.count: "),
    ],
)
def test_a_damaged_manifest_names_the_key(
    store: ResultStore, manifest: Make, damage: Callable[[dict[str, Any]], object], named: str
) -> None:
    """A key that is missing, unknown or wrong is named with its place in the file."""
    path = store.write_manifest(manifest())
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(BadManifest, match=f"manifest.json: {named}"):
        store.read_manifest("first")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1'])
def test_a_manifest_that_is_no_json_record_is_refused(store: ResultStore, manifest: Make, text: str) -> None:
    """A truncated or foreign file is damage, with the file named."""
    store.write_manifest(manifest()).write_text(text)
    with pytest.raises(BadManifest, match=r"manifest\.json: the file: "):
        store.read_manifest("first")


def test_a_number_json_cannot_hold_is_refused_and_the_old_manifest_stays(
    store: ResultStore, manifest: Make
) -> None:
    """NaN in a check is named as the mistake it is, not written as something no reader takes."""
    store.write_manifest(manifest())
    model = ModelRecord(name="m", sha256="a", card={}, checkpoint=None, checks={"x": {"value": float("nan")}})
    with pytest.raises(BadManifest, match=r"manifest.json: .*JSON"):
        store.write_manifest(manifest(models=(model,)))
    assert store.read_manifest("first") == manifest()


def test_a_record_cannot_be_changed_after_it_was_made(manifest: Make) -> None:
    """A manifest is a record: a new state is a new record."""
    with pytest.raises(ValidationError, match="frozen"):
        manifest().seed = 1
