from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from iqa_results import (
    INTERVAL_SCHEMA,
    TABLE_SCHEMA,
    CellRecord,
    DataRecord,
    ModelRecord,
    Provenance,
    RunManifest,
)

MAIN, LARGE = 2 / 255, 4 / 255


class Run(NamedTuple):
    """What a report is made from."""

    manifest: RunManifest
    table: pa.Table
    intervals: pa.Table


def value(model: str, row: str, number: float | None, **changes: Any) -> dict[str, Any]:
    """One row of the table: SROCC at the main radius unless changed."""
    clean = row == "clean"
    fields = {
        "model": model,
        "data": "demo",
        "split": "test",
        "images": 40,
        "row": row,
        "attack": "",
        "objective": "",
        "norm": "none" if clean else "inf",
        "epsilon": 0.0 if clean else MAIN,
        "steps": 0 if clean else 10,
        "final": True,
        "metric": "srocc",
        "clean": 0.8,
        "value": number,
        "low": None if number is None else number - 0.1,
        "high": None if number is None else number + 0.1,
        "value_8bit": None if number is None or clean else number + 0.005,
        "undefined": "constant scores" if number is None else None,
        "mapping": "none",
        "drop": None if number is None else number - 0.8,
        "drop_low": None if number is None else number - 0.9,
        "drop_high": None if number is None else number - 0.7,
        "interval": "" if number is None else "BCa over images",
        "units": 0 if number is None else 40,
        "fit": None,
        "ties_with": None,
        "verdict": "sound",
        "flags": "",
    }
    return fields | changes


def rows_of(model: str, clean: float, worst: float, composed: float, *, large: bool) -> list[dict[str, Any]]:
    """Every row of one model, in both metrics; PLCC is SROCC plus a hundredth."""
    made = []
    for metric, more in (("srocc", 0.0), ("plcc", 0.01)):
        common = {"metric": metric, "clean": clean + more}
        common |= {"mapping": "none" if metric == "srocc" else "logistic on val"}
        made.append(value(model, "clean", clean + more, **common))
        for epsilon in (MAIN, LARGE) if large else (MAIN,):
            common["epsilon"] = epsilon
            made.append(value(model, "suite_min", worst + more, attack="pgd", objective="mse", **common))
            made.append(value(model, "composed", composed + more, **common))
        common["epsilon"] = MAIN
        for steps in (1, 5, 10):
            swept = {"attack": "pgd", "steps": steps, "final": steps == 10, **common}
            up = (10 - steps) / 20 + more
            made.append(value(model, "attack", worst + up, objective="mse", **swept))
            made.append(value(model, "attack", worst + 0.2 + up, objective="drift", **swept))
    return made


def cell(model: str, attack: str, epsilon: float, status: str, error: str | None = None) -> CellRecord:
    """One cell of the plan."""
    return CellRecord(
        key="0" * 64,
        model=model,
        attack=attack,
        epsilon=epsilon,
        split="test",
        first=0,
        count=40,
        status=status,  # type: ignore[arg-type]
        error=error,
    )


def check(passed: bool) -> dict[str, Any]:
    """One check as the harness records it."""
    return {"value": 3.1e-7, "threshold": 1e-5, "passed": passed, "detail": "score alone = score in a batch"}


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """Return a function that makes a run of two models; manifest fields and names replaced as given.

    `strong` is the more robust one, with everything; `weak` lacks the large radius (its cell failed), has an
    undefined PLCC of the suite's minimum and a failed check.
    """

    def make(*, strong: str = "strong", weak: str = "weak", **changes: Any) -> Run:
        rows = rows_of(weak, 0.858, -0.394, -0.691, large=False) + rows_of(
            strong, 0.812, 0.303, 0.201, large=True
        )
        no_number = dict.fromkeys(("value", "low", "high", "value_8bit")) | {"undefined": "constant scores"}
        for row in rows:
            if (row["model"], row["row"], row["metric"]) == (weak, "suite_min", "plcc"):
                row.update(no_number)
            if row["row"] == "composed":
                row.update(value_8bit=None)
        intervals = [
            {
                "model": model,
                "norm": "inf",
                "epsilon": MAIN,
                "image_id": f"image-{i}",
                "mos": ((7 * i) % 40) / 40,
                "clean": i / 40,
                "s_min": i / 40 - 0.2,
                "s_max": i / 40 + 0.3,
                "composed_srocc": i / 40 - 0.2,
                "composed_plcc": i / 40,
            }
            for model in (weak, strong)
            for i in range(40)
        ]
        fields: dict[str, Any] = {
            "run": "first",
            "suite": "smoke",
            "suite_sha256": "5" * 64,
            "suite_text": 'name = "smoke"\n# ``` <b>\n',
            "main_epsilon": MAIN,
            "suite_min": ("pgd/mse", "pgd/drift"),
            "step_sweep": "pgd",
            "seed": 7,
            "models": tuple(
                ModelRecord(
                    name=name,
                    sha256="a" * 64,
                    card={},
                    checkpoint=None,
                    checks={"finite": check(passed=True), "batch": check(passed=name == strong)},
                )
                for name in (weak, strong)
            ),
            "data": DataRecord(
                name="demo", sha256="d" * 64, split="test", images=40, label="pseudo-MOS", card={}
            ),
            "cells": (
                *(cell(name, "clean", 0, "done") for name in (weak, strong)),
                *(cell(name, "pgd", MAIN, "done") for name in (weak, strong)),
                cell(strong, "pgd", LARGE, "done"),
                cell(weak, "pgd", LARGE, "failed", "out of memory"),
            ),
            "status": "partial",
            "started": "2026-11-22T01:00:00Z",
            "ended": "2026-11-22T01:01:00Z",
            "forwards": 4000,
            "backwards": 2000,
            "seconds": 61.5,
            "provenance": Provenance(
                packages={"torch": "2.6.0"},
                python="3.11.7",
                platform="Linux",
                device="cpu",
                threads=1,
                commit="c0ffee",
                dirty=True,
            ),
            "notes": ("seven scenes only",),
        }
        return Run(
            RunManifest(**{**fields, **changes}),
            pa.Table.from_pylist(rows, schema=TABLE_SCHEMA),
            pa.Table.from_pylist(intervals, schema=INTERVAL_SCHEMA),
        )

    return make


@pytest.fixture(scope="session")
def run(make_run: Callable[..., Run]) -> Run:
    """The run of two models as it is."""
    return make_run()
