"""What the papers' tables and figures are drawn from: a record a frame, each field with its meaning.

A frame is a list of such records, or an Arrow table of their schema in a file. The harness gathers them from
runs, checkpoints and the files of `evaluate`, `study`, `diagnose` and `profile`; anybody else may make some.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import pyarrow as pa

from iqa_results import TableSchema

KEY = b"iqa_frame"
"""Key of a frame's name in the schema's metadata, and so in a Parquet file's."""


class Result(NamedTuple):
    """A value of one model, or of several seeds of one, in one place."""

    model: Annotated[str, "what the row is called; several seeds of one model are one row"]
    registered: Annotated[str | None, "name in the model registry"]
    backbone: Annotated[str | None, "timm tag of the trunk; null if unknown or none"]
    neck: Annotated[str | None, "srm | baseline; null for a model that is no SRM pair's half"]
    variant: Annotated[str | None, "what was changed: an ablation's name, a fusion; null if nothing"]
    loss: Annotated[str | None, "training loss by name; null if unknown"]
    lr: Annotated[float | None, "peak learning rate of the trunk; null if unknown"]
    trained_on: Annotated[str | None, "data set the weights were trained on; null if unknown"]
    suite: Annotated[str, "suite the value comes from; '' for an evaluation without attack"]
    data: Annotated[str, "image set"]
    split: Annotated[str, "evaluated split"]
    images: Annotated[int, "images evaluated"]
    row: Annotated[str, "clean | attack | suite_min | composed | closed_loop"]
    attack: Annotated[str, "attack of an attack row, NAME:SURROGATE for a transfer; else ''"]
    objective: Annotated[str, "objective of an attack row; else ''"]
    norm: Annotated[str, "norm of the ball; 'none' for clean"]
    epsilon: Annotated[float, "radius on pixels in [0, 1]; 0 for clean"]
    metric: Annotated[str, "srocc | plcc | krocc | rmse ..."]
    value: Annotated[float | None, "the value, over several seeds their mean; null if undefined"]
    std: Annotated[float | None, "standard deviation over seeds (n - 1); null with one seed"] = None
    seeds: Annotated[int, "trained models the value is over"] = 1
    low: Annotated[
        float | None,
        "lower end of the 95 % interval of one model's value; null over several seeds",
    ] = None
    high: Annotated[float | None, "upper end of it"] = None
    parameters: Annotated[int | None, "parameters of the whole model; null if unknown"] = None
    macs: Annotated[int | None, "multiply-adds of one forward pass; null if unknown"] = None
    undefined: Annotated[str | None, "why the value is null"] = None


class Diagnostic(NamedTuple):
    """A number that `diagnose` measured inside a neck."""

    model: Annotated[str, "model the neck belongs to"]
    table: Annotated[str, "conditioning | scale | gate"]
    quantity: Annotated[str, "kappa, residual, rms_before, rms_after, gamma, entropy, ..."]
    place: Annotated[str, "link (4->1), stage (stage 1) or all"]
    statistic: Annotated[str, "median, p90, mean, min, max, share, ..."]
    value: Annotated[float, "the number"]
    samples: Annotated[int, "how many values it summarises"]


class Cost(NamedTuple):
    """What a part of a model costs, as `profile` counted or measured it."""

    model: Annotated[str, "model as it was named"]
    part: Annotated[str, "child module, 'whole', or the name of a measured step"]
    size: Annotated[int, "side of the square images"]
    batch: Annotated[int, "images at once"]
    precision: Annotated[str, "fp32 | bf16 | fp16"]
    device: Annotated[str, "device of a measured step; '' where counted"]
    parameters: Annotated[int | None, "count; null for a measured step"]
    macs: Annotated[int | None, "multiply-adds of one batch; null for a measured step"]
    seconds: Annotated[float | None, "median time of a measured step; null where counted"]
    peak_bytes: Annotated[int | None, "peak memory of a measured step; null where counted"]


class Epoch(NamedTuple):
    """A number of one epoch of a training run."""

    model: Annotated[str, "training run"]
    epoch: Annotated[int, "epochs done"]
    quantity: Annotated[str, "loss, val_srocc, train_srocc, val_plcc, seconds, gamma, ... as logged"]
    place: Annotated[str, "link of a gamma; '' for what has no place"]
    value: Annotated[float | None, "the number; null if undefined"]
    best: Annotated[bool, "whether this epoch was chosen"]


class Setting(NamedTuple):
    """A setting of a model or of its training."""

    model: Annotated[str, "model as it is called"]
    category: Annotated[str, "architecture | training | data | cost"]
    setting: Annotated[str, "name of the setting"]
    value: Annotated[str | None, "its value in words; null if unknown"]


class Attention(NamedTuple):
    """How an image's score weighs the four stages of a trunk."""

    model: Annotated[str, "model with an attention over stages"]
    image_id: Annotated[str, "image"]
    mos: Annotated[float, "label"]
    score: Annotated[float, "the model's score"]
    stage1: Annotated[float, "weight of stage 1, mean over the image's crops"]
    stage2: Annotated[float, "weight of stage 2, mean over the image's crops"]
    stage3: Annotated[float, "weight of stage 3, mean over the image's crops"]
    stage4: Annotated[float, "weight of stage 4, mean over the image's crops"]

    @property
    def stages(self) -> tuple[float, float, float, float]:
        """Weights of the four stages."""
        return self.stage1, self.stage2, self.stage3, self.stage4


class Feature(NamedTuple):
    """The activation of one stage of a trunk on one image."""

    model: Annotated[str, "model"]
    image_id: Annotated[str, "image"]
    mos: Annotated[float, "label"]
    stage: Annotated[int, "1, the highest resolution, to 4"]
    height: Annotated[int, "rows of the map"]
    width: Annotated[int, "columns of the map"]
    activation: Annotated[Sequence[float], "mean absolute activation over channels, row by row"]


FRAMES: dict[str, TableSchema[Any]] = {
    name: TableSchema(record, {KEY.decode(): name})
    for name, record in {
        "results": Result,
        "diagnostics": Diagnostic,
        "costs": Cost,
        "training": Epoch,
        "settings": Setting,
        "attention": Attention,
        "features": Feature,
    }.items()
}
"""Every kind of frame by its name, which stands in the metadata of its schema."""


def make_frame(name: str, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Return records of one kind as a table that says what it is."""
    return FRAMES[name].to_table(rows, name)
