"""What a model costs: parameters, multiply-adds, time and memory, by parts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

from iqa_harness.api.inputs import Model, entrants_of, set_up
from iqa_harness.errors import RunError
from iqa_harness.evaluation.evaluate import in_use
from iqa_harness.machine.devices import own_threads
from iqa_harness.machine.places import require_file
from iqa_models import QualityModel, SRMQuality
from iqa_models import profile as costs
from iqa_models.profile import Growth, Measured, PartCost
from iqa_reports import make_frame
from iqa_reports.inputs.frames import Cost
from iqa_results import write_parquet

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Profile:
    """What a model costs on images of one size."""

    model: str
    """The model's name."""
    input: str
    """Batch, size, and what the model makes of it."""
    parts: tuple[PartCost, ...]
    """Counted: parameters and multiply-adds of every part, the whole last."""
    measured: Mapping[str, Measured]
    """Measured, by step; empty if nothing was."""
    growth: tuple[Growth, ...]
    """Links of a neck by token count; empty if it was not asked for."""
    costs: pa.Table
    """COSTS frame: parts and steps."""
    files: tuple[Path, ...] = ()
    """What was written."""

    @property
    def convention(self) -> str:
        """What is counted, in words."""
        return costs.CONVENTION

    @property
    def table(self) -> pd.DataFrame:
        """One row a part and step: parameters, macs, seconds, peak_bytes."""
        frame: pd.DataFrame = self.costs.to_pandas()
        return frame

    @property
    def exponents(self) -> list[str]:
        """A line on each form of attention: the fitted exponents of its costs in the token count."""
        return _exponents(self.growth)

    def __repr__(self) -> str:
        return f"{self.model}, {self.input}\n{self.table.to_string(index=False)}"

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False))


@own_threads
def profile(
    model: Model,
    *,
    size: int = 384,
    batch: int = 1,
    precision: str = "fp32",
    repeats: int = 10,
    growth: bool = False,
    out: Path | str | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> Profile:
    """Count and measure what a model costs.

    Every keyword is an option of `iqa-harness profile`, hence their number.

    Args:
        model: by name, by folder, or an object.
        size: side of the square images in pixels.
        batch: images at once.
        precision: fp32, bf16 or fp16, by autocast.
        repeats: measured passes; 0 counts and measures nothing.
        growth: an SRM neck's links beside full attention over growing token counts.
        out: Parquet file of the costs, for `report --input`.
        device: torch device.
        threads: threads within one operation, by default torch's own.

    Raises:
        RunError: growth of a model without neck, a device or file that cannot be used.
        ModelError: an unknown precision, or a model that cannot be made.
    """
    file = None if out is None else Path(out)
    require_file(file, "--out")
    set_up(device, threads)
    costs.autocast(device, precision)  # an unknown precision is refused before anything is built
    (entrant,) = entrants_of(model, tell=False)
    subject = entrant.model
    if growth and not isinstance(subject, SRMQuality):
        raise RunError("--growth compares the links of an SRM neck: take an srm model")
    parts = tuple(costs.count_cost(subject, height=size, width=size, batch=batch))
    measured = _measured(subject, size, batch, precision, repeats, device) if repeats else {}
    rows: Sequence[Growth] = ()
    if growth and isinstance(subject, SRMQuality):
        rows = costs.growth_table(subject.config, device=device, precision=precision, repeats=repeats or None)
    setting = {"model": entrant.label, "size": size, "batch": batch, "precision": precision}
    frame = _frame(parts, measured, setting, device)
    files = () if file is None else (write_parquet(file, frame),)
    shape = f"{batch} x 3 x {size} x {size}; input: {subject.spec.input_protocol}"
    return Profile(subject.spec.name, shape, parts, measured, tuple(rows), frame, files)


def _measured(
    model: QualityModel, size: int, batch: int, precision: str, repeats: int, device: str
) -> dict[str, Measured]:
    images = torch.rand(batch, 3, size, size, device=device)
    with in_use(model, device):
        steps = {"forward": costs.forward_step(model, images, precision)}
        if any(weight.requires_grad for weight in model.parameters()):
            # Training changes weights, and a caller wants the model as it was.
            steps["training step"] = costs.training_step(copy.deepcopy(model), images, precision)
        if isinstance(model, SRMQuality):
            steps["neck, forward"] = costs.neck_step(model, images, precision)
        return {name: costs.measure(step, device, repeats=repeats) for name, step in steps.items()}


def _frame(
    parts: Sequence[PartCost], measured: Mapping[str, Measured], setting: dict[str, Any], device: str
) -> pa.Table:
    none: dict[str, Any] = {"parameters": None, "macs": None, "seconds": None, "peak_bytes": None}
    counted = [
        Cost(**{**none, **setting, "part": p.part, "device": "", "parameters": p.parameters, "macs": p.macs})
        for p in parts
    ]
    timed = [
        Cost(**{**none, **setting, "part": name, "device": device, "seconds": one.median,
                "peak_bytes": one.peak_bytes})
        for name, one in measured.items()
    ]  # fmt: skip
    return make_frame("costs", [*counted, *timed])


def _exponents(rows: Sequence[Growth]) -> list[str]:
    lines = []
    for attention in dict.fromkeys(row.attention for row in rows):
        own = [row for row in rows if row.attention == attention]
        tokens = [row.tokens for row in own]
        parts = [f"multiply-adds {costs.fit_exponent(tokens, [row.macs for row in own]):.2f}"]
        measured = [row.measured for row in own if row.measured is not None]
        if measured:
            parts.append(f"time {costs.fit_exponent(tokens, [one.median for one in measured]):.2f}")
            if all(one.peak_bytes for one in measured):
                memory = costs.fit_exponent(tokens, [one.peak_bytes for one in measured])
                parts.append(f"memory {memory:.2f}")
        lines.append(f"{attention}: cost ~ tokens^p, p of {', '.join(parts)}")
    return lines
