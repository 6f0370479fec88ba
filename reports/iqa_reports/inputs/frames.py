"""What the papers' tables and figures are drawn from: documented columns, one typed row a line.

A frame is an Arrow table of one of these schemas. The harness gathers them from runs, checkpoints and the
files of `evaluate`, `study`, `diagnose` and `profile`; anybody else may make them too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pyarrow as pa

from iqa_reports.errors import BadFrame
from iqa_results import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

_S, _F, _I = pa.string(), pa.float64(), pa.int64()

KEY = b"iqa_frame"
"""Key of a frame's name in the schema's metadata, and so in a Parquet file's."""

RESULT_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "what the row is called; several seeds of one model are one row"),
    Column("registered", _S, True, "name in the model registry"),
    Column("backbone", _S, True, "timm tag of the trunk; null if unknown or none"),
    Column("neck", _S, True, "srm | baseline; null for a model that is no SRM pair's half"),
    Column("variant", _S, True, "what was changed: an ablation's name, a fusion; null if nothing"),
    Column("loss", _S, True, "training loss by name; null if unknown"),
    Column("lr", _F, True, "peak learning rate of the trunk; null if unknown"),
    Column("trained_on", _S, True, "data set the weights were trained on; null if unknown"),
    Column("suite", _S, False, "suite the value comes from; '' for an evaluation without attack"),
    Column("data", _S, False, "image set"),
    Column("split", _S, False, "evaluated split"),
    Column("images", _I, False, "images evaluated"),
    Column("row", _S, False, "clean | attack | suite_min | composed"),
    Column("attack", _S, False, "attack of an attack row, NAME:SURROGATE for a transfer; else ''"),
    Column("objective", _S, False, "objective of an attack row; else ''"),
    Column("norm", _S, False, "norm of the ball; 'none' for clean"),
    Column("epsilon", _F, False, "radius on pixels in [0, 1]; 0 for clean"),
    Column("metric", _S, False, "srocc | plcc | krocc | rmse ..."),
    Column("value", _F, True, "the value, over several seeds their mean; null if undefined"),
    Column("std", _F, True, "standard deviation over seeds (n - 1); null with one seed"),
    Column("seeds", _I, False, "trained models the value is over"),
    Column("low", _F, True, "lower end of the 95 % interval of one model's value; null over several seeds"),
    Column("high", _F, True, "upper end of it"),
    Column("parameters", _I, True, "parameters of the whole model; null if unknown"),
    Column("macs", _I, True, "multiply-adds of one forward pass; null if unknown"),
    Column("undefined", _S, True, "why the value is null"),
)

DIAGNOSTIC_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "model the neck belongs to"),
    Column("table", _S, False, "conditioning | scale | gate"),
    Column("quantity", _S, False, "kappa, residual, rms_before, rms_after, gamma, entropy, ..."),
    Column("place", _S, False, "link (4->1), stage (stage 1) or all"),
    Column("statistic", _S, False, "median, p90, mean, min, max, share, ..."),
    Column("value", _F, False, "the number"),
    Column("samples", _I, False, "how many values it summarises"),
)

COST_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "model as it was named"),
    Column("part", _S, False, "child module, 'whole', or the name of a measured step"),
    Column("size", _I, False, "side of the square images"),
    Column("batch", _I, False, "images at once"),
    Column("precision", _S, False, "fp32 | bf16 | fp16"),
    Column("device", _S, False, "device of a measured step; '' where counted"),
    Column("parameters", _I, True, "count; null for a measured step"),
    Column("macs", _I, True, "multiply-adds of one batch; null for a measured step"),
    Column("seconds", _F, True, "median time of a measured step; null where counted"),
    Column("peak_bytes", _I, True, "peak memory of a measured step; null where counted"),
)

TRAINING_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "training run"),
    Column("epoch", _I, False, "epochs done"),
    Column("quantity", _S, False, "loss, val_srocc, train_srocc, val_plcc, seconds, gamma, ... as logged"),
    Column("place", _S, False, "link of a gamma; '' for what has no place"),
    Column("value", _F, True, "the number; null if undefined"),
    Column("best", pa.bool_(), False, "whether this epoch was chosen"),
)

SETTING_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "model as it is called"),
    Column("category", _S, False, "architecture | training | data | cost"),
    Column("setting", _S, False, "name of the setting"),
    Column("value", _S, True, "its value in words; null if unknown"),
)

ATTENTION_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "model with an attention over stages"),
    Column("image_id", _S, False, "image"),
    Column("mos", _F, False, "label"),
    Column("score", _F, False, "the model's score"),
    *(
        Column(f"stage{s}", _F, False, f"weight of stage {s}, mean over the image's crops")
        for s in range(1, 5)
    ),
)

FEATURE_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "model"),
    Column("image_id", _S, False, "image"),
    Column("mos", _F, False, "label"),
    Column("stage", _I, False, "1, the highest resolution, to 4"),
    Column("height", _I, False, "rows of the map"),
    Column("width", _I, False, "columns of the map"),
    Column("activation", pa.list_(_F), False, "mean absolute activation over channels, row by row"),
)


def _schema(name: str, columns: tuple[Column, ...]) -> pa.Schema:
    fields = [pa.field(c.name, c.type, nullable=c.nullable, metadata={"doc": c.doc}) for c in columns]
    return pa.schema(fields, metadata={KEY: name.encode()})


RESULTS = _schema("results", RESULT_COLUMNS)
DIAGNOSTICS = _schema("diagnostics", DIAGNOSTIC_COLUMNS)
COSTS = _schema("costs", COST_COLUMNS)
TRAINING = _schema("training", TRAINING_COLUMNS)
SETTINGS = _schema("settings", SETTING_COLUMNS)
ATTENTION = _schema("attention", ATTENTION_COLUMNS)
FEATURES = _schema("features", FEATURE_COLUMNS)

FRAMES: dict[str, pa.Schema] = {
    schema.metadata[KEY].decode(): schema
    for schema in (RESULTS, DIAGNOSTICS, COSTS, TRAINING, SETTINGS, ATTENTION, FEATURES)
}
"""Every kind of frame by the name in its schema's metadata."""


class Result(NamedTuple):
    """One row of a RESULTS frame."""

    model: str
    registered: str | None
    backbone: str | None
    neck: str | None
    variant: str | None
    loss: str | None
    lr: float | None
    trained_on: str | None
    suite: str
    data: str
    split: str
    images: int
    row: str
    attack: str
    objective: str
    norm: str
    epsilon: float
    metric: str
    value: float | None
    std: float | None
    seeds: int
    low: float | None
    high: float | None
    parameters: int | None
    macs: int | None
    undefined: str | None


class Diagnostic(NamedTuple):
    """One row of a DIAGNOSTICS frame."""

    model: str
    table: str
    quantity: str
    place: str
    statistic: str
    value: float
    samples: int


class Cost(NamedTuple):
    """One row of a COSTS frame."""

    model: str
    part: str
    size: int
    batch: int
    precision: str
    device: str
    parameters: int | None
    macs: int | None
    seconds: float | None
    peak_bytes: int | None


class Epoch(NamedTuple):
    """One row of a TRAINING frame."""

    model: str
    epoch: int
    quantity: str
    place: str
    value: float | None
    best: bool


class Setting(NamedTuple):
    """One row of a SETTINGS frame."""

    model: str
    category: str
    setting: str
    value: str | None


class Attention(NamedTuple):
    """One row of an ATTENTION frame."""

    model: str
    image_id: str
    mos: float
    score: float
    stage1: float
    stage2: float
    stage3: float
    stage4: float

    @property
    def stages(self) -> tuple[float, float, float, float]:
        """Weights of the four stages."""
        return self.stage1, self.stage2, self.stage3, self.stage4


class Feature(NamedTuple):
    """One row of a FEATURES frame."""

    model: str
    image_id: str
    mos: float
    stage: int
    height: int
    width: int
    activation: Sequence[float]


Row = TypeVar("Row", Result, Diagnostic, Cost, Epoch, Setting, Attention, Feature)

_ROWS: dict[type, pa.Schema] = {
    Result: RESULTS,
    Diagnostic: DIAGNOSTICS,
    Cost: COSTS,
    Epoch: TRAINING,
    Setting: SETTINGS,
    Attention: ATTENTION,
    Feature: FEATURES,
}


def make_frame(kind: type[Row], rows: Sequence[Row]) -> pa.Table:
    """Return typed rows as a frame."""
    return pa.Table.from_pylist([row._asdict() for row in rows], schema=_ROWS[kind])


def rows_of(frame: pa.Table, kind: type[Row]) -> list[Row]:
    """Return a frame as typed rows.

    Raises:
        BadFrame: a column is missing, or has another type; the message names the columns.
    """
    schema = _ROWS[kind]
    name = schema.metadata[KEY].decode()
    missing = [c for c in schema.names if c not in frame.column_names]
    if missing:
        raise BadFrame(f"a frame of {name} lacks the columns {', '.join(missing)}")
    wrong = [c for c in schema.names if frame.schema.field(c).type != schema.field(c).type]
    if wrong:
        raise BadFrame(f"a frame of {name} has another type in the columns {', '.join(wrong)}")
    return [kind(**row) for row in frame.select(schema.names).to_pylist()]
