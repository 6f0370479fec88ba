from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from iqa_results import (
    INTERVAL,
    ROW,
    TABLE,
    CellRecord,
    DataRecord,
    ModelRecord,
    Provenance,
    ResultStore,
    RunManifest,
    TableSchema,
)

KEY = "0123456789abcdef" * 4


def _plain(schema: TableSchema[Any]) -> dict[str, Any]:
    values = {pa.string(): "x", pa.bool_(): True, pa.int64(): 1, pa.float64(): 0.5}
    return {c.name: values[c.type] for c in schema.columns}


@pytest.fixture
def key() -> str:
    """Key of the cell that `rows` belong to."""
    return KEY


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Twenty rows of one cell, nulls where nulls may be."""
    base = {**_plain(ROW), "cell": KEY}
    made = [{**base, "image_id": f"image-{i}", "position": i, "adv_score": i / 7} for i in range(20)]
    made[3] |= {"distortion": None, "level": None, "loss": None}
    return made


@pytest.fixture
def table_rows() -> list[dict[str, Any]]:
    """Two rows of a run's table, one of them undefined."""
    base = _plain(TABLE)
    nothing = dict.fromkeys(("clean", "value", "low", "high", "value_8bit"))
    return [{**base, "undefined": None}, {**base, **nothing, "undefined": "constant scores"}]


@pytest.fixture
def interval_rows() -> list[dict[str, Any]]:
    """Two reachable intervals."""
    base = _plain(INTERVAL)
    return [base, {**base, "image_id": "y", "s_min": -1.5}]


@pytest.fixture
def manifest() -> Callable[..., RunManifest]:
    """Return a function that makes a manifest, fields replaced as given."""

    def make(**changes: Any) -> RunManifest:
        fields: dict[str, Any] = {
            "run": "first",
            "suite": "smoke",
            "suite_sha256": "5" * 64,
            "suite_text": 'name = "smoke"\n',
            "main_epsilon": 2 / 255,
            "suite_min": ("pgd/mse", "pgd/drift"),
            "step_sweep": "pgd",
            "seed": 0,
            "models": (
                ModelRecord(name="m", sha256="a" * 64, card={"backbone": "x"}, checkpoint=None, checks={}),
            ),
            "data": DataRecord(
                name="demo", sha256="d" * 64, split="test", images=20, label="pseudo-MOS", card={"scenes": 7}
            ),
            "cells": (
                CellRecord(
                    key=KEY,
                    model="m",
                    attack="clean",
                    epsilon=0,
                    split="test",
                    first=0,
                    count=20,
                    status="done",
                ),
            ),
            "status": "complete",
            "started": "2026-11-22T01:00:00Z",
            "ended": "2026-11-22T01:01:00Z",
            "forwards": 20,
            "backwards": 0,
            "seconds": 1.5,
            "provenance": Provenance(
                packages={"torch": "2.6.0"},
                python="3.11.7",
                platform="Linux",
                device="cpu",
                threads=1,
                commit=None,
                dirty=None,
            ),
            "notes": ("labels are pseudo-MOS",),
        }
        return RunManifest(**{**fields, **changes})

    return make


@pytest.fixture
def readme_store(
    tmp_path: Path,
    manifest: Callable[..., RunManifest],
    rows: list[dict[str, Any]],
    table_rows: list[dict[str, Any]],
    interval_rows: list[dict[str, Any]],
) -> Path:
    """Folder of a store with one run."""
    store = ResultStore(tmp_path / "store")
    store.write_cell(KEY, rows)
    store.write_manifest(manifest())
    worst = {"row": "suite_min", "metric": "srocc", "epsilon": manifest().main_epsilon}
    store.write_table("first", [table_rows[0] | worst, *table_rows[1:]])
    store.write_table("first", interval_rows, "intervals")
    return store.root
