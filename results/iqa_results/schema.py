"""The columns of what is stored, one documented record a column."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

SCHEMA_VERSION = 1
"""Part of every cell's key: a change of the rows' meaning makes every cell missing, never mixed."""


class Column(NamedTuple):
    """One column of a stored table."""

    name: str
    type: pa.DataType
    nullable: bool
    doc: str


def _schema(columns: tuple[Column, ...], version: int) -> pa.Schema:
    return pa.schema(
        [pa.field(c.name, c.type, nullable=c.nullable, metadata={"doc": c.doc}) for c in columns],
        metadata={"schema_version": str(version)},
    )


_S, _F, _I = pa.string(), pa.float64(), pa.int64()

ROW_COLUMNS: tuple[Column, ...] = (
    Column("cell", _S, False, "key of the cell that wrote the row"),
    Column("model", _S, False, "name the run gave the model"),
    Column("model_sha256", _S, False, "hash of the model's card and weights"),
    Column("data", _S, False, "name of the image set"),
    Column("data_sha256", _S, False, "fingerprint of the image set"),
    Column("split", _S, False, "split of the image: train, val or test"),
    Column("image_id", _S, False, "id of the image in its set"),
    Column("position", _I, False, "place of the image in the evaluated order, from 0"),
    Column("reference", _S, False, "content the image shows"),
    Column("distortion", _S, True, "type of distortion, null if unknown"),
    Column("level", _I, True, "strength of the distortion, 0 for an original, null if unknown"),
    Column("mos", _F, False, "label on the set's own scale, higher is better"),
    Column(
        "attack",
        _S,
        False,
        "name of the attack in the suite; 'clean' for scores without attack; 'NAME:SURROGATE' for examples "
        "of another model of the run",
    ),
    Column(
        "kind",
        _S,
        False,
        "kind of attack: clean, fgsm, pgd, mifgsm, apgd, noise, square, universal, torchattacks, transfer",
    ),
    Column(
        "objective",
        _S,
        False,
        "what was maximised; 'lowest_seen' and 'highest_seen' are the ends of all scores the cell's "
        "attack met on this image; 'none' for clean",
    ),
    Column("norm", _S, False, "norm of the ball: inf, 2 or rmse; 'none' for clean"),
    Column("epsilon", _F, False, "radius of the ball on pixels in [0, 1]; 0 for clean"),
    Column(
        "threat",
        _S,
        False,
        "what an example must be beside in the ball: 'ball' for nothing more, 'ssim>=0.95' for that "
        "similarity, '8bit' for whole grey levels; 'none' for clean",
    ),
    Column(
        "steps",
        _I,
        False,
        "gradient steps (of `square`: queries) after which this example was the best; prefix of the run",
    ),
    Column("final", pa.bool_(), False, "True for the attack's full number of steps, False for a prefix"),
    Column(
        "step_size", _F, False, "step size at the beginning, on pixels in [0, 1]; 0 for attacks without steps"
    ),
    Column(
        "restarts", _I, False, "random starts (or draws of `noise`) the example was chosen from; 0 for clean"
    ),
    Column("seed", _I, False, "seed of the suite; starts are drawn from (seed, image_id, restart)"),
    Column(
        "clean_score",
        _F,
        False,
        "score of the unattacked image, higher is better; of a stochastic model the mean of its draws",
    ),
    Column("adv_score", _F, False, "score of the stored example, re-computed by the harness"),
    Column("adv_score_8bit", _F, False, "score of the stored example rounded to 8 bits a channel"),
    Column(
        "adv_score_jpeg",
        _F,
        True,
        "mean score of the stored example written as JPEG files of the suite's `jpeg_qualities` and read "
        "again; of a clean row that of the clean image; null if the suite names none",
    ),
    Column(
        "attack_score",
        _F,
        False,
        "score the attack itself saw for this example; of a transfer the surrogate's; of an attack through "
        "JPEG the mean over its qualities",
    ),
    Column("loss", _F, True, "the objective's value for this example; null for clean and seen ends"),
    Column("best_restart", _I, False, "restart that found the example"),
    Column("best_step", _I, False, "iterate of that restart, 0 for its start"),
    Column("linf", _F, False, "largest absolute pixel change of the example, measured"),
    Column("l2", _F, False, "Euclidean norm of the pixel change, measured"),
    Column("rmse", _F, False, "root mean square pixel change, measured"),
    Column(
        "ssim",
        _F,
        False,
        "structural similarity with the clean image, measured: mean over channels, Gaussian windows of "
        "11 x 11, sigma 1.5; 1 for clean",
    ),
    Column("projection_moved", _F, False, "largest pixel change made when the harness projected again"),
    Column(
        "forwards",
        _I,
        False,
        "model evaluations on this image up to `steps`, shared by all objectives; 0 for a transfer, whose "
        "examples are paid for in the surrogate's own cell",
    ),
    Column("backwards", _I, False, "of them with a gradient, shared by all objectives of the cell"),
    Column(
        "zero_gradients",
        _I,
        False,
        "gradients that were exactly zero in every pixel: a masked gradient moves no attack",
    ),
    Column("seconds", _F, False, "wall time of the cell divided by its images"),
    Column("device", _S, False, "device the cell ran on"),
    Column("harness", _S, False, "version and commit of the code that computed the row"),
)

ROW_SCHEMA = _schema(ROW_COLUMNS, SCHEMA_VERSION)
"""One row an (image, attack, objective, steps)."""

TABLE_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "name the run gave the model"),
    Column("data", _S, False, "name of the image set"),
    Column("split", _S, False, "evaluated split"),
    Column(
        "images", _I, False, "images the value was computed from, 0 if it is undefined for want of images"
    ),
    Column(
        "row",
        _S,
        False,
        "clean | attack | suite_min | composed: what the value is; attack rows name attack and objective",
    ),
    Column("attack", _S, False, "attack of an attack row; the member that gave a suite_min; else ''"),
    Column("objective", _S, False, "objective of an attack row; that of the suite_min's member; else ''"),
    Column("norm", _S, False, "norm of the ball; 'none' for clean"),
    Column("epsilon", _F, False, "radius on pixels in [0, 1]; 0 for clean"),
    Column("steps", _I, False, "steps of the prefix; 0 for clean"),
    Column("final", pa.bool_(), False, "True for full strength, False for a point of the step sweep"),
    Column("metric", _S, False, "srocc | plcc"),
    Column("clean", _F, True, "the metric on the clean scores of the same images; null if undefined"),
    Column("value", _F, True, "the metric on the attacked scores; null if undefined"),
    Column("low", _F, True, "lower end of the 95 % bootstrap interval of `value`; null if undefined"),
    Column("high", _F, True, "upper end of it"),
    Column("value_8bit", _F, True, "`value` after rounding the images to 8 bits; null if not defined"),
    Column("undefined", _S, True, "why `value` or `clean` is undefined; null if both are defined"),
    Column(
        "mapping",
        _S,
        False,
        "map before plcc: 'logistic on val', 'logistic on the attacked ... images, clean' or 'none'",
    ),
)

TABLE_SCHEMA = _schema(TABLE_COLUMNS, SCHEMA_VERSION)
"""One row a (model, kind of row, attack, objective, norm, epsilon, steps, metric)."""

INTERVAL_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "name the run gave the model"),
    Column("norm", _S, False, "norm of the ball"),
    Column("epsilon", _F, False, "radius on pixels in [0, 1]"),
    Column("image_id", _S, False, "id of the image in its set"),
    Column("mos", _F, False, "label"),
    Column("clean", _F, False, "clean score"),
    Column("s_min", _F, False, "lowest score of any admissible image that any attack found"),
    Column("s_max", _F, False, "highest one"),
    Column("composed_srocc", _F, False, "score the composed worst case of SROCC chose"),
    Column("composed_plcc", _F, False, "score the composed worst case of PLCC chose"),
)

INTERVAL_SCHEMA = _schema(INTERVAL_COLUMNS, SCHEMA_VERSION)
"""One row a (model, norm, epsilon, image): what an adversary can reach."""


def describe(columns: tuple[Column, ...]) -> str:
    """Return the columns as a Markdown table: name, type, meaning."""
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for c in columns:
        kind = f"{c.type} or null" if c.nullable else str(c.type)
        meaning = c.doc.replace("|", "\\|")  # a bare one would end the cell
        lines.append(f"| `{c.name}` | {kind} | {meaning} |")
    return "\n".join(lines)
