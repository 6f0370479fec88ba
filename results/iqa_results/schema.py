"""What is stored: a record a table, each field with its meaning; schemas and columns.md follow from them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from iqa_results.table_schema import TableSchema

SCHEMA_VERSION = 2
"""Part of every cell's key: a change of the rows' meaning makes every cell missing, never mixed."""


class Row(NamedTuple):
    """One score of one image: a row an (image, attack, objective, steps)."""

    cell: Annotated[str, "key of the cell that wrote the row"]
    model: Annotated[str, "name the run gave the model"]
    model_sha256: Annotated[str, "hash of the model's card and weights"]
    data: Annotated[str, "name of the image set"]
    data_sha256: Annotated[str, "fingerprint of the image set"]
    split: Annotated[str, "split of the image: train, val or test"]
    image_id: Annotated[str, "id of the image in its set"]
    position: Annotated[int, "place of the image in the evaluated order, from 0"]
    reference: Annotated[str, "content the image shows"]
    distortion: Annotated[str | None, "type of distortion, null if unknown"]
    level: Annotated[int | None, "strength of the distortion, 0 for an original, null if unknown"]
    mos: Annotated[float, "label on the set's own scale, higher is better"]
    attack: Annotated[
        str,
        "name of the attack in the suite; 'clean' for scores without attack; 'NAME:SURROGATE' for "
        "examples of another model of the run",
    ]
    kind: Annotated[
        str,
        "kind of attack: clean, fgsm, pgd, mifgsm, apgd, noise, square, spsa, minimum_norm, "
        "universal, closed_loop, torchattacks, transfer",
    ]
    objective: Annotated[
        str,
        "what was maximised; 'lowest_seen' and 'highest_seen' are the ends of all scores the cell's "
        "attack met on this image; 'none' for clean",
    ]
    norm: Annotated[str, "norm of the ball: inf, 2 or rmse; 'none' for clean"]
    epsilon: Annotated[float, "radius of the ball on pixels in [0, 1]; 0 for clean"]
    threat: Annotated[
        str,
        "what an example must be beside in the ball: 'ball' for nothing more, 'ssim>=0.95' for that "
        "similarity, '8bit' for whole grey levels; 'none' for clean",
    ]
    steps: Annotated[
        int,
        "gradient steps (of `square`: queries) after which this example was the best; prefix of the run",
    ]
    final: Annotated[bool, "True for the attack's full number of steps, False for a prefix"]
    step_size: Annotated[
        float,
        "step size at the beginning, on pixels in [0, 1]; 0 for attacks without steps",
    ]
    restarts: Annotated[int, "random starts (or draws of `noise`) the example was chosen from; 0 for clean"]
    seed: Annotated[int, "seed of the suite; starts are drawn from (seed, image_id, restart)"]
    clean_score: Annotated[
        float,
        "score of the unattacked image, higher is better; of a stochastic model the mean of its draws",
    ]
    adv_score: Annotated[float, "score of the stored example, re-computed by the harness"]
    adv_score_8bit: Annotated[float, "score of the stored example rounded to 8 bits a channel"]
    adv_score_jpeg: Annotated[
        float | None,
        "mean score of the stored example written as JPEG files of the suite's `jpeg_qualities` and read "
        "again; of a clean row that of the clean image; null if the suite names none",
    ]
    attack_score: Annotated[
        float,
        "score the attack itself saw for this example; of a transfer the surrogate's",
    ]
    loss: Annotated[float | None, "the objective's value for this example; null for clean and seen ends"]
    best_restart: Annotated[int, "restart that found the example"]
    best_step: Annotated[int, "iterate of that restart, 0 for its start"]
    linf: Annotated[float, "largest absolute pixel change of the example, measured"]
    l2: Annotated[float, "Euclidean norm of the pixel change, measured"]
    rmse: Annotated[float, "root mean square pixel change, measured"]
    ssim: Annotated[
        float,
        "structural similarity with the clean image, measured: mean over channels, Gaussian windows of 11"
        " x 11, sigma 1.5; 1 for clean",
    ]
    projection_moved: Annotated[float, "largest pixel change made when the harness projected again"]
    forwards: Annotated[
        int,
        "model evaluations on this image up to `steps`, shared by all objectives; the first image of a "
        "universal attack pays for its training; 0 for a transfer, whose examples are paid for in the "
        "surrogate's own cell",
    ]
    backwards: Annotated[int, "of them with a gradient, shared by all objectives of the cell"]
    zero_gradients: Annotated[
        int,
        "gradients that were exactly zero in every pixel: a masked gradient moves no attack",
    ]
    gradient_l1: Annotated[
        float | None,
        "of clean rows of the evaluated split: sum of the absolute input gradient, in units of the card's"
        " score range for a change of every pixel by 1; null in other rows and where it is not finite",
    ]
    seconds: Annotated[float, "wall time of the cell divided by its images"]
    device: Annotated[str, "device the cell ran on"]
    harness: Annotated[str, "version and commit of the code that computed the row"]


class Estimate(NamedTuple):
    """A value of a run: a row a (model, kind of row, attack, objective, norm, epsilon, steps, metric)."""

    model: Annotated[str, "name the run gave the model"]
    data: Annotated[str, "name of the image set"]
    split: Annotated[str, "evaluated split"]
    images: Annotated[int, "images the value was computed from, 0 if it is undefined for want of images"]
    row: Annotated[
        str,
        "clean | attack | suite_min | composed | closed_loop: what the value is; attack rows name attack and "
        "objective",
    ]
    attack: Annotated[str, "attack of an attack row; the member that gave a suite_min; else ''"]
    objective: Annotated[str, "objective of an attack row; that of the suite_min's member; else ''"]
    norm: Annotated[str, "norm of the ball; 'none' for clean"]
    epsilon: Annotated[float, "radius on pixels in [0, 1]; 0 for clean"]
    steps: Annotated[int, "steps of the prefix; 0 for clean"]
    final: Annotated[bool, "True for full strength, False for a point of the step sweep"]
    metric: Annotated[str, "srocc | plcc"]
    clean: Annotated[
        float | None,
        "the metric on the clean scores of the same images; null if undefined",
    ] = None
    value: Annotated[float | None, "the metric on the attacked scores; null if undefined"] = None
    low: Annotated[
        float | None,
        "lower end of the 95 % bootstrap interval of `value`; null if undefined",
    ] = None
    high: Annotated[float | None, "upper end of it"] = None
    drop: Annotated[
        float | None,
        "value - clean, negative where the attack hurts; null if either is undefined",
    ] = None
    drop_low: Annotated[float | None, "lower end of the paired 95 % bootstrap interval of `drop`"] = None
    drop_high: Annotated[float | None, "upper end of it"] = None
    interval: Annotated[
        str,
        "how intervals were made: 'BCa over images', 'percentile over references', ...; '' without one",
    ] = ""
    units: Annotated[int, "number of images or references that are drawn again; 0 without an interval"] = 0
    value_8bit: Annotated[
        float | None,
        "`value` after rounding the images to 8 bits; null if not defined",
    ] = None
    undefined: Annotated[str | None, "why `value` or `clean` is undefined; null if both are defined"] = None
    mapping: Annotated[
        str,
        "map before plcc: 'logistic on val', 'logistic on the attacked ... images, clean' or 'none'",
    ] = "none"
    fit: Annotated[
        str | None,
        "of plcc: 'ok', or 'failed: ...' where no logistic could be fitted and raw scores were used; null"
        " for srocc",
    ] = None
    ties_with: Annotated[
        str | None,
        "models, joined by ', ', whose paired difference in this row has an interval that holds 0, all pairs "
        "of models at once; of clean rows and of the worst cases at the main radius; null where nothing was "
        "compared",
    ] = None
    verdict: Annotated[
        str,
        "of the model: sound | suspect | incomplete | invalid; '' where it was not judged",
    ] = ""
    flags: Annotated[str, "names of the model's raised flags, joined by ', '"] = ""

    @property
    def ties(self) -> tuple[str, ...]:
        """Models this value is not told apart from."""
        return tuple(name.strip() for name in (self.ties_with or "").split(",") if name.strip())


class Reach(NamedTuple):
    """What an adversary can reach on one image: a row a (model, norm, epsilon, image)."""

    model: Annotated[str, "name the run gave the model"]
    norm: Annotated[str, "norm of the ball"]
    epsilon: Annotated[float, "radius on pixels in [0, 1]"]
    image_id: Annotated[str, "id of the image in its set"]
    mos: Annotated[float, "label"]
    clean: Annotated[float, "clean score"]
    s_min: Annotated[float, "lowest score of any admissible image that any attack found"]
    s_max: Annotated[float, "highest one"]
    composed_srocc: Annotated[float, "score the composed worst case of SROCC chose"]
    composed_plcc: Annotated[float, "score the composed worst case of PLCC chose"]


class Flag(NamedTuple):
    """Is the number to be believed? A row a (model, flag)."""

    model: Annotated[str, "name the run gave the model"]
    flag: Annotated[str, "name of the flag; `iqa-harness verify --explain NAME` says what it means"]
    value: Annotated[float | None, "what was measured; null if it could not be"]
    threshold: Annotated[float, "the bound it is held against"]
    raised: Annotated[bool, "whether the value is on the wrong side of it"]
    measured: Annotated[bool, "False if the run has nothing to measure it on; never raised then"]
    severity: Annotated[str, "what a raised flag makes of the verdict: invalid | incomplete | suspect"]
    detail: Annotated[str, "what was compared, in words; why it was not measured"]


class Difference(NamedTuple):
    """Are two models told apart? A row a (pair of models, kind of row, metric), at the main radius."""

    model_a: Annotated[str, "one model, in the manifest's order"]
    model_b: Annotated[str, "a later one"]
    row: Annotated[str, "clean | suite_min | composed | closed_loop"]
    attack: Annotated[str, "attack that gave the suite_min if it is the same for both; else ''"]
    objective: Annotated[str, "its objective if it is the same for both; else ''"]
    norm: Annotated[str, "norm of the ball; 'none' for clean"]
    epsilon: Annotated[float, "radius on pixels in [0, 1]; 0 for clean"]
    metric: Annotated[str, "srocc | plcc"]
    difference: Annotated[
        float | None,
        "value of model_a minus value of model_b; null if either is undefined",
    ]
    low: Annotated[
        float | None,
        "lower end of its paired interval; those of all pairs of this row and metric hold at once with 95 %",
    ]
    high: Annotated[float | None, "upper end of it"]
    images: Annotated[int, "images both were judged on"]
    interval: Annotated[str, "how it was made: 't of 6 pairs at once over images', '' without one"]
    tied: Annotated[bool, "True if the interval holds 0, or there is none"]


class Measure(NamedTuple):
    """Any number but a correlation: a row a (model, attack, objective, norm, epsilon, steps, measure)."""

    model: Annotated[str, "name the run gave the model"]
    attack: Annotated[str, "attack of the suite; 'clean' for what needs none"]
    objective: Annotated[str, "objective; 'none' for clean, 'all' for what objectives share or do together"]
    norm: Annotated[str, "norm of the ball; 'none' for clean"]
    epsilon: Annotated[float, "radius on pixels in [0, 1]; 0 for clean; of `drift_auc` the largest one"]
    steps: Annotated[int, "steps of the prefix; 0 for clean"]
    final: Annotated[bool, "True for full strength"]
    measure: Annotated[
        str,
        "self_srocc | krocc | mae | rmse_score | gain_signed | gain_absolute | gain_iqr | r_score_median "
        "| r_score_mean | pair_inversion | psnr_mean | ssim_mean | kept_8bit | kept_jpeg | srocc_jpeg | "
        "drift_auc | optimality_srocc | optimality_move | gradient_l1 | forwards | backwards | seconds; "
        "their formulas are in the harness's measures/robustness.py and measures/optimality.py; of a search "
        "for the smallest radius radius_median | radius_low | radius_high | radius_missed | "
        "radius_kept_8bit, and moved_share, whose `epsilon` is the point of its curve: tables/radii.py",
    ]
    value: Annotated[float | None, "the value; null if undefined"]
    undefined: Annotated[str | None, "why it is undefined; null if it is not"]


class LogisticFit(NamedTuple):
    """The logistic of PLCC, a row a model: q -> b1 (1/2 - 1 / (1 + exp(b2 (q - b3)))) + b4 q + b5."""

    model: Annotated[str, "name the run gave the model"]
    split: Annotated[str, "split of the clean scores it was fitted on"]
    images: Annotated[int, "number of them"]
    b1: Annotated[float | None, "parameter 1 of the logistic on scores as stored; null if it failed"]
    b2: Annotated[float | None, "parameter 2 of the logistic on scores as stored; null if it failed"]
    b3: Annotated[float | None, "parameter 3 of the logistic on scores as stored; null if it failed"]
    b4: Annotated[float | None, "parameter 4 of the logistic on scores as stored; null if it failed"]
    b5: Annotated[float | None, "parameter 5 of the logistic on scores as stored; null if it failed"]
    residual: Annotated[float | None, "root mean square residual on the label scale; null if it failed"]
    status: Annotated[str, "ok | failed"]
    detail: Annotated[str, "starts that converged; why it failed"]


class Plant(NamedTuple):
    """Is what is known to be there found? A row a (model, attack, plant); see the harness's flags.md."""

    model: Annotated[str, "name the run gave the model"]
    model_sha256: Annotated[str, "hash of the model's card and weights"]
    attack: Annotated[str, "attack of the suite that looked for the plant"]
    kind: Annotated[str, "its kind"]
    norm: Annotated[str, "norm of the ball"]
    epsilon: Annotated[float, "radius on pixels in [0, 1]: the suite's main one"]
    key: Annotated[str, "hash of what decides the row beside its image: model, attack, images, seed, grade"]
    image_id: Annotated[str, "image the plant is near"]
    direction: Annotated[str, "raise | lower: what the plant does to the score"]
    width: Annotated[
        float, "distance from the centre at which half of it is left, centre to clean image being 1"
    ]
    steepness: Annotated[
        float, "slope where attacks begin, as a multiple of what the model's own slope promises there"
    ]
    height: Annotated[float, "by how much it moves the score at its centre, on the model's own scale"]
    near: Annotated[float, "share of the height that the nearest of the attack's examples reached"]
    found: Annotated[bool, "whether that is half of it or more: the example lies within the width"]
    forwards: Annotated[int, "evaluations of the planted model on this image, each two of the model"]
    backwards: Annotated[int, "of them with a gradient"]
    seconds: Annotated[float, "wall time of the attack divided by its images"]
    harness: Annotated[str, "version and commit of the code that computed the row"]


class Power(NamedTuple):
    """How much of what is known to be there an attack finds: a row a (model, attack, grade of plants)."""

    model: Annotated[str, "name the run gave the model"]
    attack: Annotated[str, "attack of the suite; 'any' for what at least one of them found"]
    width: Annotated[float | None, "of the plants; null in the row of all that an attack must find"]
    steepness: Annotated[float | None, "of the plants; null there too"]
    plants: Annotated[int, "number of plants"]
    found: Annotated[int, "number found"]
    share: Annotated[float, "found / plants"]
    low: Annotated[float, "lower end of the 95 % Clopper-Pearson interval of it, plants taken as independent"]
    high: Annotated[float, "upper end of it"]


class Certificate(NamedTuple):
    """What no attack can do: a floor under a correlation, a row a (model, norm, epsilon, metric).

    Written by `iqa-harness certify`; a run that was not certified has no such table.
    """

    model: Annotated[str, "name the run gave the model"]
    model_sha256: Annotated[str, "hash of the model's card and weights"]
    norm: Annotated[str, "norm of the ball"]
    epsilon: Annotated[float, "radius on pixels in [0, 1]"]
    metric: Annotated[str, "srocc | plcc"]
    images: Annotated[int, "images the floor is under, 0 without a certificate"]
    clean: Annotated[float | None, "the metric on the clean scores of the same images; null if undefined"]
    value: Annotated[float | None, "floor under the metric over all admissible images; null if there is none"]
    exact: Annotated[bool, "whether scores within the images' intervals come as near to it as one likes"]
    method: Annotated[str, "closed form | layer bounds | median smoothing; '' without a certificate"]
    confidence: Annotated[float | None, "with which it holds; 1 where nothing was drawn; null without one"]
    outside: Annotated[
        int | None,
        "images that an attack of the run moved out of their interval: 0 unless something is wrong, or "
        "a smoothed score was estimated from few draws; null where no attack was looked at",
    ]
    undefined: Annotated[str | None, "why there is none; null if there is"]


class BaselineScore(NamedTuple):
    """What a gate compares, in `scores.parquet`: a row a (model, row, attack, objective, image)."""

    model: Annotated[str, "name of the model"]
    row: Annotated[str, "clean | attack | composed"]
    attack: Annotated[str, "attack of an attack row; else ''"]
    objective: Annotated[str, "its objective; 'srocc' or 'plcc' for the choice of composed; else ''"]
    norm: Annotated[str, "norm of the ball; 'none' for clean"]
    epsilon: Annotated[float, "radius on pixels in [0, 1]: the main one; 0 for clean"]
    image_id: Annotated[str, "id of the image in its set"]
    reference: Annotated[str, "content the image shows"]
    mos: Annotated[float, "label"]
    score: Annotated[float, "score of the image, attacked at full strength unless clean"]
    mapped: Annotated[float, "the same through the model's frozen logistic; the score itself without one"]


class Use(NamedTuple):
    """For what a kept example was chosen."""

    place: int
    objective: str
    steps: int
    loss: float | None


class KeptExample(NamedTuple):
    """A row a distinct attacked image.

    The file's metadata `result` holds the cell's clean scores and costs as JSON. To decode a value: take what
    `nearest` says, XOR its bits with `pixels`.
    """

    cell: Annotated[str, "key of the cell whose attack found the example"]
    image_id: Annotated[str, "id of the image in its set"]
    image: Annotated[int, "place of the image in its cell, from 0"]
    height: Annotated[int, "pixels from top to bottom"]
    width: Annotated[int, "pixels from left to right"]
    score: Annotated[float, "score the attack saw for it"]
    restart: Annotated[int, "restart that found it"]
    step: Annotated[int, "iterate of that restart, 0 for its start"]
    uses: Annotated[
        Sequence[Use],
        "for what it was chosen: place in the attack's own list, objective, number of steps, loss",
    ]
    epsilon: Annotated[float, "radius around the clean image that `nearest` speaks of"]
    nearest: Annotated[
        bytes,
        "int8 (3, height, width): what the value is nearest to, 0 the clean image (uint8 / 255 in "
        "float32), 1 or -1 clean + epsilon or clean - epsilon, clipped to [0, 1]",
    ]
    pixels: Annotated[
        bytes,
        "float32 (3, height, width) in [0, 1], each value's bits XOR those of what it is nearest to: "
        "first all lowest bytes, then the next, up to the highest",
    ]


_VERSION = {"schema_version": str(SCHEMA_VERSION)}

ROW = TableSchema(Row, _VERSION)
TABLE = TableSchema(Estimate, _VERSION)
INTERVAL = TableSchema(Reach, _VERSION)
FLAG = TableSchema(Flag, _VERSION)
DIFFERENCE = TableSchema(Difference, _VERSION)
MEASURE = TableSchema(Measure, _VERSION)
FIT = TableSchema(LogisticFit, _VERSION)
PLANT = TableSchema(Plant, _VERSION)
POWER = TableSchema(Power, _VERSION)
CERTIFICATE = TableSchema(Certificate, _VERSION)
BASELINE = TableSchema(BaselineScore, _VERSION)
EXAMPLE = TableSchema(KeptExample, {"schema_version": "1"})

RUN_TABLES: dict[str, TableSchema[Any]] = {
    "table": TABLE,
    "intervals": INTERVAL,
    "flags": FLAG,
    "differences": DIFFERENCE,
    "measures": MEASURE,
    "fits": FIT,
    "power": POWER,
}
"""The tables of a run that are made from its rows, by the names of their files."""

STORED_TABLES: dict[str, TableSchema[Any]] = {**RUN_TABLES, "plants": PLANT, "certificates": CERTIFICATE}
"""The same and what is added to a run by name, not made from its rows."""

ROW_SCHEMA, TABLE_SCHEMA, INTERVAL_SCHEMA = ROW.arrow, TABLE.arrow, INTERVAL.arrow
FLAG_SCHEMA, DIFFERENCE_SCHEMA, MEASURE_SCHEMA = FLAG.arrow, DIFFERENCE.arrow, MEASURE.arrow
FIT_SCHEMA, BASELINE_SCHEMA, EXAMPLE_SCHEMA = FIT.arrow, BASELINE.arrow, EXAMPLE.arrow


def columns_page() -> str:
    """Return the text of columns.md."""
    parts = [
        "# Columns of everything stored",
        "Rows of cells come first; the tables of a run lie in `runs/<run>/NAME.parquet` and are read by "
        "`ResultStore.read_table(run, NAME)`.\nEach column's meaning stands in the files' own metadata too.",
    ]
    places = {f"{name}.parquet": schema for name, schema in STORED_TABLES.items()}
    shown: dict[str, TableSchema[Any]] = {
        "cells/": ROW,
        **places,
        "examples/": EXAMPLE,
        "A baseline": BASELINE,
    }
    for place, schema in shown.items():
        parts += [f"## {place}", inspect.getdoc(schema.record) or "", schema.markdown()]
    return "\n\n".join(parts) + "\n"
