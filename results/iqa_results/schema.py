"""The columns of what is stored, one documented record a column."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

SCHEMA_VERSION = 2
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
        "score the attack itself saw for this example; of a transfer the surrogate's",
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
        "model evaluations on this image up to `steps`, shared by all objectives; the first image of a "
        "universal attack pays for its training; 0 for a transfer, whose examples are paid for in the "
        "surrogate's own cell",
    ),
    Column("backwards", _I, False, "of them with a gradient, shared by all objectives of the cell"),
    Column(
        "zero_gradients",
        _I,
        False,
        "gradients that were exactly zero in every pixel: a masked gradient moves no attack",
    ),
    Column(
        "gradient_l1",
        _F,
        True,
        "of clean rows of the evaluated split: sum of the absolute input gradient, in units of the card's "
        "score range for a change of every pixel by 1; null in other rows and where it is not finite",
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
    Column("drop", _F, True, "value - clean, negative where the attack hurts; null if either is undefined"),
    Column("drop_low", _F, True, "lower end of the paired 95 % bootstrap interval of `drop`"),
    Column("drop_high", _F, True, "upper end of it"),
    Column(
        "interval",
        _S,
        False,
        "how intervals were made: 'BCa over images', 'percentile over references', ...; '' without one",
    ),
    Column("units", _I, False, "number of images or references that are drawn again; 0 without an interval"),
    Column("value_8bit", _F, True, "`value` after rounding the images to 8 bits; null if not defined"),
    Column("undefined", _S, True, "why `value` or `clean` is undefined; null if both are defined"),
    Column(
        "mapping",
        _S,
        False,
        "map before plcc: 'logistic on val', 'logistic on the attacked ... images, clean' or 'none'",
    ),
    Column(
        "fit",
        _S,
        True,
        "of plcc: 'ok', or 'failed: ...' where no logistic could be fitted and raw scores were used; "
        "null for srocc",
    ),
    Column(
        "ties_with",
        _S,
        True,
        "models, joined by ', ', whose paired difference in this row has an interval that holds 0; of "
        "clean rows and of suite_min and composed at the main radius; null where nothing was compared",
    ),
    Column(
        "verdict",
        _S,
        False,
        "of the model: sound | suspect | incomplete | invalid; '' where it was not judged",
    ),
    Column("flags", _S, False, "names of the model's raised flags, joined by ', '"),
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

FLAG_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "name the run gave the model"),
    Column("flag", _S, False, "name of the flag; `iqa-harness verify --explain NAME` says what it means"),
    Column("value", _F, True, "what was measured; null if it could not be"),
    Column("threshold", _F, False, "the bound it is held against"),
    Column("raised", pa.bool_(), False, "whether the value is on the wrong side of it"),
    Column("measured", pa.bool_(), False, "False if the run has nothing to measure it on; never raised then"),
    Column("severity", _S, False, "what a raised flag makes of the verdict: invalid | incomplete | suspect"),
    Column("detail", _S, False, "what was compared, in words; why it was not measured"),
)

FLAG_SCHEMA = _schema(FLAG_COLUMNS, SCHEMA_VERSION)
"""One row a (model, flag): is the number to be believed?"""

DIFFERENCE_COLUMNS: tuple[Column, ...] = (
    Column("model_a", _S, False, "one model, in the manifest's order"),
    Column("model_b", _S, False, "a later one"),
    Column("row", _S, False, "clean | suite_min | composed"),
    Column("attack", _S, False, "attack that gave the suite_min if it is the same for both; else ''"),
    Column("objective", _S, False, "its objective if it is the same for both; else ''"),
    Column("norm", _S, False, "norm of the ball; 'none' for clean"),
    Column("epsilon", _F, False, "radius on pixels in [0, 1]; 0 for clean"),
    Column("metric", _S, False, "srocc | plcc"),
    Column("difference", _F, True, "value of model_a minus value of model_b; null if either is undefined"),
    Column("low", _F, True, "lower end of the paired 95 % bootstrap interval of it"),
    Column("high", _F, True, "upper end of it"),
    Column("images", _I, False, "images both were judged on"),
    Column("interval", _S, False, "how the interval was made, as in the table"),
    Column("tied", pa.bool_(), False, "True if the interval holds 0, or there is none"),
)

DIFFERENCE_SCHEMA = _schema(DIFFERENCE_COLUMNS, SCHEMA_VERSION)
"""One row a (pair of models, kind of row, metric), at the main radius."""

MEASURE_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "name the run gave the model"),
    Column("attack", _S, False, "attack of the suite; 'clean' for what needs none"),
    Column("objective", _S, False, "objective; 'none' for clean, 'all' for what objectives share"),
    Column("norm", _S, False, "norm of the ball; 'none' for clean"),
    Column("epsilon", _F, False, "radius on pixels in [0, 1]; 0 for clean; of `drift_auc` the largest one"),
    Column("steps", _I, False, "steps of the prefix; 0 for clean"),
    Column("final", pa.bool_(), False, "True for full strength"),
    Column(
        "measure",
        _S,
        False,
        "self_srocc | krocc | mae | rmse_score | gain_signed | gain_absolute | gain_iqr | r_score_median | "
        "r_score_mean | pair_inversion | psnr_mean | ssim_mean | kept_8bit | kept_jpeg | srocc_jpeg | "
        "drift_auc | gradient_l1 | forwards | backwards | seconds; their formulas are in the harness's "
        "measures.py",
    ),
    Column("value", _F, True, "the value; null if undefined"),
    Column("undefined", _S, True, "why it is undefined; null if it is not"),
)

MEASURE_SCHEMA = _schema(MEASURE_COLUMNS, SCHEMA_VERSION)
"""One row a (model, attack, objective, norm, epsilon, steps, measure)."""

FIT_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "name the run gave the model"),
    Column("split", _S, False, "split of the clean scores it was fitted on"),
    Column("images", _I, False, "number of them"),
    *(
        Column(f"b{i}", _F, True, f"parameter {i} of the logistic on scores as stored; null if it failed")
        for i in range(1, 6)
    ),
    Column("residual", _F, True, "root mean square residual on the label scale; null if it failed"),
    Column("status", _S, False, "ok | failed"),
    Column("detail", _S, False, "starts that converged; why it failed"),
)

FIT_SCHEMA = _schema(FIT_COLUMNS, SCHEMA_VERSION)
"""One row a model: q -> b1 (1/2 - 1 / (1 + exp(b2 (q - b3)))) + b4 q + b5."""

BASELINE_COLUMNS: tuple[Column, ...] = (
    Column("model", _S, False, "name of the model"),
    Column("row", _S, False, "clean | attack | composed"),
    Column("attack", _S, False, "attack of an attack row; else ''"),
    Column("objective", _S, False, "its objective; 'srocc' or 'plcc' for the choice of composed; else ''"),
    Column("norm", _S, False, "norm of the ball; 'none' for clean"),
    Column("epsilon", _F, False, "radius on pixels in [0, 1]: the main one; 0 for clean"),
    Column("image_id", _S, False, "id of the image in its set"),
    Column("reference", _S, False, "content the image shows"),
    Column("mos", _F, False, "label"),
    Column("score", _F, False, "score of the image, attacked at full strength unless clean"),
    Column("mapped", _F, False, "the same through the model's frozen logistic; the score itself without one"),
)

BASELINE_SCHEMA = _schema(BASELINE_COLUMNS, SCHEMA_VERSION)
"""One row a (model, row, attack, objective, image)."""


EXAMPLE_COLUMNS: tuple[Column, ...] = (
    Column("cell", _S, False, "key of the cell whose attack found the example"),
    Column("image_id", _S, False, "id of the image in its set"),
    Column("image", _I, False, "place of the image in its cell, from 0"),
    Column("height", _I, False, "pixels from top to bottom"),
    Column("width", _I, False, "pixels from left to right"),
    Column("score", _F, False, "score the attack saw for it"),
    Column("restart", _I, False, "restart that found it"),
    Column("step", _I, False, "iterate of that restart, 0 for its start"),
    Column(
        "uses",
        pa.list_(
            pa.struct(
                [("place", _I), ("objective", _S), ("steps", _I), ("loss", _F)],
            )
        ),
        False,
        "for what it was chosen: place in the attack's own list, objective, number of steps, loss",
    ),
    Column("epsilon", _F, False, "radius around the clean image that `nearest` speaks of"),
    Column(
        "nearest",
        pa.binary(),
        False,
        "int8 (3, height, width): what the value is nearest to, 0 the clean image (uint8 / 255 in float32), "
        "1 or -1 clean + epsilon or clean - epsilon, clipped to [0, 1]",
    ),
    Column(
        "pixels",
        pa.binary(),
        False,
        "float32 (3, height, width) in [0, 1], each value's bits XOR those of what it is nearest to: first "
        "all lowest bytes, then the next, up to the highest",
    ),
)

EXAMPLE_SCHEMA = _schema(EXAMPLE_COLUMNS, 1)
"""One row a distinct example; the file's metadata `result` holds clean scores and costs as JSON."""


def describe(columns: tuple[Column, ...]) -> str:
    """Return the columns as a Markdown table: name, type, meaning."""
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for c in columns:
        kind = f"{c.type} or null" if c.nullable else str(c.type)
        meaning = c.doc.replace("|", "\\|")  # a bare one would end the cell
        lines.append(f"| `{c.name}` | {kind} | {meaning} |")
    return "\n".join(lines)
