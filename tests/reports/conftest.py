from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from iqa_reports import Inputs, ModelCost, Report, StoredRun, Triptych, build_report
from iqa_reports.inputs.frames import Attention, Cost, Diagnostic, Epoch, Feature, Result, Setting
from iqa_results import (
    INTERVAL_SCHEMA,
    TABLE,
    TABLE_SCHEMA,
    CellRecord,
    DataRecord,
    Flag,
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

    @property
    def stored(self) -> StoredRun:
        """The run as it is read from a store, with flags, costs and two pictures."""
        models = [m.name for m in self.manifest.models]
        rows = [flag(m, name, raised) for m in models for name, raised in FLAGS]
        rows += [flag(m, name, None) for m in models for name in UNMEASURED]
        costs = {m: ModelCost(120.0, 3.25) for m in models}
        three, facts = (PIXEL, PIXEL, PIXEL), (42.6, 0.9951)
        pictures = (
            Triptych(models[0], "image-3", "pgd/mse", *three, 0.25, 0.4, 0.9, *facts, "jpeg", large=True),
            Triptych(
                models[0], "image-4", "pgd/mse", *three, 0.75, 0.6, 0.5, *facts, "<i>blur", other_score=0.375
            ),
        )
        estimates = tuple(TABLE.rows(self.table))
        return StoredRun(self.manifest, estimates, self.intervals, tuple(rows), costs, pictures, "store")

    def report(self, **changes: Any) -> Report:
        """The report of this run alone."""
        return build_report(
            Inputs([self.stored], explanations={"zero_gradients": "Why: a dead end."}, **changes)
        )


FLAGS = (("zero_gradients", False), ("random_as_strong", True))

UNMEASURED = ("jpeg_fragile", "never_tried")

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)
"""A picture of one pixel."""


def flag(model: str, name: str, raised: bool | None) -> Flag:
    """One row of flags; None is one that was not measured."""
    found = None if raised is None else 0.97 if raised else 0.0
    return Flag(model, name, found, 0.5, bool(raised), raised is not None, "suspect", "pgd/mse at 2/255 <b>")


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
        "drop": None,
        "drop_low": None,
        "drop_high": None,
        "interval": "" if number is None else "BCa over images",
        "units": 0 if number is None else 40,
        "fit": None,
        "ties_with": None,
        "verdict": "",
        "flags": "",
    }
    made = fields | changes
    if number is not None and not clean:
        drop = number - made["clean"]
        made |= {"drop": drop, "drop_low": drop - 0.1, "drop_high": drop + 0.1}
    return made


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


def result(model: str, number: float | None, **changes: Any) -> Result:
    """One row of a RESULTS frame: clean SROCC of a model on koniq10k unless changed."""
    row = Result(
        model=model,
        registered=None,
        backbone=None,
        neck=None,
        variant=None,
        loss=None,
        lr=None,
        trained_on="koniq10k",
        suite="",
        data="koniq10k",
        split="test",
        images=2010,
        row="clean",
        attack="",
        objective="",
        norm="none",
        epsilon=0.0,
        metric="srocc",
        value=number,
        std=None,
        seeds=1,
        low=None if number is None else number - 0.01,
        high=None if number is None else number + 0.01,
        parameters=None,
        macs=None,
        undefined=None if number is not None else "constant scores",
    )
    return row._replace(**changes)


def both(model: str, srocc: float, plcc: float, **changes: Any) -> list[Result]:
    """SROCC and PLCC of a model in one place."""
    return [result(model, srocc, **changes), result(model, plcc, metric="plcc", **changes)]


@pytest.fixture(scope="session")
def frames() -> dict[str, list[Any]]:
    """One small frame of every kind: SRM pairs and ablations, SMART sizes and losses, a training run."""
    rows: list[Result] = []
    for trunk, change in (("swin_tiny", 0.0), ("pvt_v2_b2", 0.01)):
        for neck, gain in (("baseline", 0.0), ("srm", 0.07)):
            pair = {"backbone": trunk, "neck": neck, "variant": "none" if neck == "srm" else None}
            name = f"{trunk}-{neck}"
            rows += both(name, 0.9 + change, 0.91 + change, data="tid2013", **pair)
            for norm, epsilon in (("inf", 4 / 255), ("2", 1.0)):
                place = {"row": "suite_min", "suite": f"srm-{norm}", "norm": norm, "epsilon": epsilon}
                rows += both(name, 0.2 + gain, 0.25 + gain, data="tid2013", **place, **pair)
    for variant, loss in (("uniform_landmarks", 0.05), ("rank_8", 0.03)):
        pair = {"backbone": "pvt_v2_b2", "neck": "srm", "variant": variant, "data": "tid2013"}
        rows += both(variant, 0.905, 0.915, std=0.004, seeds=3, low=None, high=None, **pair)
        place = {"row": "suite_min", "suite": "srm-inf", "norm": "inf", "epsilon": 4 / 255}
        rows += both(variant, 0.27 - loss, 0.3 - loss, **place, **pair)
    for size, fusion, parameters, value in (
        ("tiny", "last", 28_979_523, 0.921),
        ("small", "afa", 50_641_491, 0.931),
        ("base", "attention", 89_111_941, 0.936),
    ):
        own = {"variant": fusion, "parameters": parameters, "macs": parameters * 150, "lr": value / 1e6}
        rows += both(f"smart-{size}", value, value + 0.01, loss=f"loss-{size}", **own)
        rows += both(f"smart-{size}", value - 0.1, value - 0.09, data="spaq", loss=f"loss-{size}", **own)
    statistics = {
        "p05": 0.2,
        "p25": 0.4,
        "median": 0.5,
        "p75": 0.6,
        "p90": 0.8,
        "p95": 0.9,
        "min": 0.1,
        "max": 1.0,
    }
    places = {
        ("conditioning", "kappa"): ("4->1", "all"),
        ("conditioning", "residual"): ("4->1", "all"),
        ("scale", "rms_before"): ("4->1", "4->2", "all"),
        ("scale", "rms_after"): ("4->1", "4->2", "all"),
        ("scale", "gamma"): ("4->1", "4->2", "all"),
        ("gate", "entropy"): ("all",),
        ("gate", "cap_factor"): ("all",),
        ("gate", "rms_before_cap"): ("all",),
        ("gate", "routing_mass"): ("stage 1", "stage 2", "stage 3"),
    }
    diagnostics = [
        Diagnostic("srm", table, quantity, place, name, number, 40)
        for (table, quantity), where in places.items()
        for place in where
        for name, number in statistics.items()
    ]
    diagnostics.append(Diagnostic("srm", "gate", "below_entropy_floor", "all", "share", 0.125, 40))
    costs = [
        Cost("srm", "neck", 384, 1, "fp32", "", 300_000, 400_000_000, None, None),
        Cost("srm", "whole", 384, 1, "fp32", "", 28_000_000, 4_000_000_000, None, None),
        Cost("srm", "neck, forward", 384, 1, "bf16", "cpu", None, None, 0.0125, 64_000_000),
    ]
    epochs = [
        Epoch("base", epoch, quantity, place, number, epoch == 2)
        for epoch in (1, 2, 3)
        for quantity, place, number in (
            ("loss", "", 12.0 / epoch),
            ("val_srocc", "", None if epoch == 1 else 0.8 + epoch / 100),
            ("seconds", "", 3.5),
            ("gamma", "4->1", 1 + epoch / 10),
            ("gamma", "4->2", 1 - epoch / 10),
        )
    ]
    settings = [
        Setting("tiny", "training", "epochs", "10"),
        Setting("base", "training", "epochs", "12"),
        Setting("base", "architecture", "fusion", "attention"),
    ]
    weights = [
        Attention("base", f"i{i}", i / 10, 0.5, 0.1, 0.2, 0.3 + i / 50, 0.4 - i / 50) for i in range(9)
    ]
    maps = [
        Feature("base", "i0", 0.25, stage, side, side, [float(v) for v in range(side * side)])
        for stage, side in ((1, 8), (2, 4), (3, 2), (4, 1))
    ]
    return {
        "results": rows,
        "diagnostics": diagnostics,
        "costs": costs,
        "training": epochs,
        "settings": settings,
        "attention": weights,
        "features": maps,
    }
