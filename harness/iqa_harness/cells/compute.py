"""One cell: attack, project again, measure, score, score after 8 bits, rows."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iqa_attacks import (
    EVALUATED,
    AttackFailed,
    AttackResult,
    Cost,
    Ensemble,
    Example,
    Learner,
    TrainedUniversal,
    draw_seeds,
    expected_score_and_gradient,
    measure,
    score_and_gradient,
    ssim,
    through_jpeg_file,
    to_8_bits,
)
from iqa_harness.cells.plan import Cell
from iqa_harness.cells.scoring import Scorer, scored_together
from iqa_harness.data.image_set import ImageSet
from iqa_harness.errors import RunError
from iqa_harness.machine.devices import same_kernels
from iqa_harness.machine.provenance import code_version
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.terminal import say
from iqa_harness.machine.tuning import Copies
from iqa_models import QualityModel

VERIFY_CHUNK = 8
"""Versions of one image that a CPU measures together: in float64 some dozens of a large one fill a memory."""
OF_CLEAN = {
    "best_restart": 0,
    "best_step": 0,
    "linf": 0.0,
    "l2": 0.0,
    "rmse": 0.0,
    "ssim": 1.0,
    "projection_moved": 0.0,
    "loss": None,
}
"""What a row of an image without attack says of an attack."""

VERIFIED = (
    "adv_score", "adv_score_8bit", "adv_score_jpeg", "linf", "l2", "rmse", "ssim", "projection_moved"
)  # fmt: skip
"""What a row says that the harness itself found of an example; the attack is never trusted."""

Crafted = Callable[[Cell], AttackResult | None]
"""Gives what an attack found that other cells use too; None for what nobody else uses."""


def run_cell(
    cell: Cell,
    model: QualityModel,
    images: ImageSet,
    runtime: Runtime,
    crafted: Crafted = lambda cell: None,
    copies: Copies | None = None,
) -> list[dict[str, Any]]:
    """Compute the rows of a cell (columns of `iqa_results.ROW`).

    Args:
        cell: what to compute.
        model: the cell's model, in eval mode on the runtime's device.
        images: the evaluated images of the cell's split.
        runtime: device and chunk sizes.
        crafted: returns what the cell's attack found, of a transfer cell what it found on the surrogate;
            None lets the cell run its attack itself.
        copies: what attacks ask for gradients, None to make the runtime's choices anew.

    Raises:
        AttackError, AttackFailed: the attack cannot be run on this model.
        DataError: an image cannot be read.
        RunError: an attacked image lies outside its threat model after projection, or a transfer cell
            is given no examples.
    """
    started = time.perf_counter()
    with same_kernels(runtime.device):
        pixels = _pixels(cell, images, runtime)
        scorer = Scorer(model, seed=cell.seed, draws=cell.draws)
        if cell.attack is None:
            rows = _clean_rows(cell, model, scorer, images, pixels, runtime)
        else:
            result = crafted(cell)
            if result is None and cell.transferred:
                raise RunError(
                    f"{cell.label}, {cell.attack_name}: no examples of {', '.join(cell.sources)} to try"
                )
            result = result or craft(cell, model, images, runtime, copies, scorer)
            rows = _attack_rows(cell, scorer, images, pixels, runtime, result)
    seconds = (time.perf_counter() - started) / cell.count
    return [{**row, "seconds": seconds, "harness": code_version()} for row in rows]


def attacked_model(cell: Cell, model: Callable[[str], QualityModel]) -> QualityModel:
    """Return what a cell's attack runs on: its model, or the mean of those of an ensemble.

    Args:
        cell: an attack's own cell, or one that an ensemble finds examples for.
        model: returns a model by its name in the run.
    """
    if cell.ensemble:
        return Ensemble([model(label) for label in cell.sources])
    return model(cell.label)


def craft(
    cell: Cell,
    model: QualityModel,
    images: ImageSet,
    runtime: Runtime,
    copies: Copies | None = None,
    scorer: Scorer | None = None,
) -> AttackResult:
    """Run a cell's attack and return what it claims to have found.

    What follows gradients asks a copy of the model for them where the runtime has a choice for that model;
    where the copy fails, the model itself.
    The training of an attack that learns is counted at the first of all attacked images: a run counts it
    once for each model, attack and radius, whatever its cells and whoever trained. A scorer of the model
    gives the attack its own scores, and then knows them; None makes one for it.
    """
    assert cell.attack is not None  # noqa: S101 - a clean cell has nothing to craft
    attack = cell.attack
    copies = copies or Copies(runtime.choices, runtime.device)
    gradients = None if cell.ensemble else copies.of(model, cell.model_sha256)
    chunk = copies.chunk(cell.model_sha256, runtime.at_most)
    if isinstance(attack, Learner) and cell.trained is not None:
        attack = cell.trained.of(
            attack,
            # What is learnt from scores that are stored is learnt from the model itself.
            model if attack.lesson.split == EVALUATED else gradients or model,
            cell.model_sha256,
            lambda pixels: to_tensor(pixels, runtime.device),
            chunk,
        )
    records = [images.records[cell.first + i] for i in range(cell.count)]
    low, high = images.card.mos_range
    mos = torch.tensor([(record.mos - low) / (high - low) for record in records], dtype=torch.float64)
    drawn = cell.draws if model.is_stochastic else None  # an ensemble need not draw as its target does
    run = functools.partial(
        attack.run,
        model,
        _pixels(cell, images, runtime),
        [record.image_id for record in records],
        mos,
        chunk=chunk,
        scores=(scorer or Scorer(model, seed=cell.seed, draws=drawn)).of,
    )
    with same_kernels(runtime.device):
        try:
            result = run(gradients=gradients)
        except AttackFailed as error:
            if gradients is None:
                raise
            # Half precision may overflow where the model does not.
            say(
                f"{cell.label}, {cell.attack_name}: no gradients of the tuned copy ({error}): "
                "asked the model",
                err=True,
            )
            result = run()
    if isinstance(attack, TrainedUniversal) and cell.first == 0:
        return attack.with_training(result)
    return result


def _pixels(cell: Cell, images: ImageSet, runtime: Runtime) -> list[Tensor]:
    return [to_tensor(images.read(i), runtime.device) for i in range(cell.first, cell.first + cell.count)]


def to_tensor(pixels: np.ndarray[Any, np.dtype[np.uint8]], device: str) -> Tensor:
    """Turn uint8 pixels (H, W, 3) into a float32 image (3, H, W) in [0, 1]."""
    held = torch.from_numpy(pixels.copy())
    if device.startswith("cuda"):  # whole numbers travel, and nobody waits for them
        held = held.pin_memory()
    return held.to(device, non_blocking=True).permute(2, 0, 1).float().div(255).contiguous()


def _clean_rows(
    cell: Cell,
    model: QualityModel,
    scorer: Scorer,
    images: ImageSet,
    pixels: Sequence[Tensor],
    runtime: Runtime,
) -> list[dict[str, Any]]:
    ids = _ids(cell, images)
    scores = scorer.of(pixels, ids)
    jpeg = _jpeg_scores(cell, scorer, pixels, ids)
    wanted = cell.gradient and model.spec.has_gradient
    slopes = _clean_gradients(cell, model, images, pixels) if wanted else None
    draws = cell.draws or 1
    return [
        {
            **image_columns(cell, images, i),
            **attack_columns(cell, runtime),
            "gradient_l1": slopes[i] if slopes else None,
            "objective": "none",
            "steps": 0,
            "final": True,
            "clean_score": value,
            "adv_score": value,
            "adv_score_8bit": value,
            "adv_score_jpeg": jpeg[i],
            "attack_score": value,
            **OF_CLEAN,
            "forwards": 2 * draws if slopes else draws,
            "backwards": draws if slopes else 0,
            "zero_gradients": draws if slopes and slopes[i] == 0 else 0,
        }
        for i, value in enumerate(scores)
    ]


def _ids(cell: Cell, images: ImageSet) -> list[str]:
    return [images.records[cell.first + i].image_id for i in range(cell.count)]


def _clean_gradients(
    cell: Cell, model: QualityModel, images: ImageSet, pixels: Sequence[Tensor]
) -> list[float | None]:
    """Return the L1 norm of every clean image's input gradient, in score ranges; None if not finite."""
    low, high = model.spec.score_range
    norms: list[float | None] = []
    for i, image in enumerate(pixels):
        image_id = images.records[cell.first + i].image_id
        try:
            if cell.draws is None:
                gradient = score_and_gradient(model, image.unsqueeze(0), chunk=1).gradients[0]
            else:
                seeds = draw_seeds(cell.seed, image_id, ("score",), cell.draws)
                gradient = expected_score_and_gradient(model, image, seeds)[1]
        except AttackFailed:
            norms.append(None)  # the attack's own cells fail, with this reason
        else:
            norms.append(float(gradient.double().abs().sum()) / (high - low))
    return norms


def _attack_rows(
    cell: Cell,
    scorer: Scorer,
    images: ImageSet,
    pixels: Sequence[Tensor],
    runtime: Runtime,
    result: AttackResult,
) -> list[dict[str, Any]]:
    """Score what was found, prefixes too; loss and score of the attack are those of the model it ran on."""
    assert cell.attack is not None  # noqa: S101 - the caller's branch
    chosen = [f for f in result.found if cell.objective in (None, f.objective)]
    verified = _verify(cell, scorer, images, pixels, [(f.image, f.example) for f in chosen])
    # One number an image in every row, whoever attacked it.
    clean = scorer.of(pixels, _ids(cell, images))
    rows = []
    for found in chosen:
        # The gradients of a surrogate are counted in its own cell; an ensemble has none but this.
        cost = Cost(0, 0, 0) if cell.surrogate else result.cost[found.image, found.steps]
        rows.append(
            {
                **image_columns(cell, images, found.image),
                **attack_columns(cell, runtime),
                "gradient_l1": None,
                "objective": found.objective,
                "steps": found.steps,
                "final": found.steps == cell.attack.effort.steps,
                "clean_score": clean[found.image],
                "attack_score": found.example.score,
                "loss": found.loss,
                "best_restart": found.example.restart,
                "best_step": found.example.step,
                "forwards": cost.forwards,
                "backwards": cost.backwards,
                "zero_gradients": cost.zero_gradients,
                **verified[id(found.example)],
            }
        )
    return rows


def _verify(
    cell: Cell,
    scorer: Scorer,
    images: ImageSet,
    pixels: Sequence[Tensor],
    found: Sequence[tuple[int, Example]],
) -> dict[int, dict[str, Any]]:
    """Project, measure and score every distinct example again, by its identity."""
    ids = _ids(cell, images)
    stacks: dict[object, dict[int, tuple[int, Example]]] = {}
    for image, example in found:
        # A GPU takes all images of a size together, a CPU has the versions of one in its caches.
        alike = pixels[image].shape if pixels[image].is_cuda else image
        stacks.setdefault(alike, {})[id(example)] = (image, example)
    verified: dict[int, dict[str, Any]] = {}
    for distinct in stacks.values():
        full = max(VERIFY_CHUNK, scored_together(pixels[0].device))
        named = list(distinct.items())
        for first in range(0, len(named), full):
            part = [each for _, each in named[first : first + full]]
            measured = _measured(cell, scorer, pixels, ids, part)
            verified |= {id(example): row for (_, example), row in zip(part, measured, strict=True)}
    return verified


def _measured(
    cell: Cell,
    scorer: Scorer,
    pixels: Sequence[Tensor],
    ids: Sequence[str],
    part: Sequence[tuple[int, Example]],
) -> list[dict[str, Any]]:
    """Return what examples of one size, each with its image's place, are found to be."""
    assert cell.attack is not None  # noqa: S101 - the caller's
    threat, owners = cell.attack.threat, [image for image, _ in part]
    claimed = torch.stack([example.pixels for _, example in part])
    one = len(set(owners)) == 1
    clean = torch.stack([pixels[image] for image in (owners[:1] if one else owners)])
    whole = clean.expand_as(claimed)
    stored = threat.admit(claimed, whole)
    rounded = to_8_bits(stored, whole, threat)
    outside = threat.violation(stored, whole) or threat.violation(rounded, whole)
    if outside is not None:
        raise RunError(
            f"{cell.label}, {cell.attack_name}: an attacked image lies outside its threat model "
            f"({outside}); this is a bug in the attack"
        )
    moved = (stored - claimed).abs().flatten(1).amax(dim=1).double()
    numbers = torch.stack([*measure(stored, whole), ssim(stored, clean), moved])
    names = [ids[image] for image in owners]
    scores, scores_8bit = (scorer.of(list(versions), names) for versions in (stored, rounded))
    columns = (scores, scores_8bit, _jpeg_scores(cell, scorer, list(stored), names), *numbers.tolist())
    return [dict(zip(VERIFIED, row, strict=True)) for row in zip(*columns, strict=True)]


def _jpeg_scores(
    cell: Cell, scorer: Scorer, versions: Sequence[Tensor], ids: Sequence[str]
) -> list[float | None]:
    """Score versions of images as JPEG files: the mean over the cell's qualities, None without any."""
    if not cell.jpeg_qualities:
        return [None] * len(versions)
    files = [
        scorer.of([through_jpeg_file(each.unsqueeze(0), quality)[0] for each in versions], ids)
        for quality in cell.jpeg_qualities
    ]
    return [sum(scores) / len(scores) for scores in zip(*files, strict=True)]


def image_columns(cell: Cell, images: ImageSet, offset: int) -> dict[str, Any]:
    """Return what a row says of its cell and of image `offset` of it."""
    record = images.records[cell.first + offset]
    return {
        "cell": cell.key,
        "model": cell.label,
        "model_sha256": cell.model_sha256,
        "data": images.card.name,
        "data_sha256": images.fingerprint,
        "split": record.split,
        "image_id": record.image_id,
        "position": cell.first + offset,
        "reference": record.reference,
        "distortion": record.distortion,
        "level": record.level,
        "mos": record.mos,
    }


def attack_columns(cell: Cell, runtime: Runtime) -> dict[str, Any]:
    """Return what a row says of the attack and of where it ran."""
    attack = cell.attack
    said: dict[str, Any] = {"attack": cell.attack_name, "device": runtime.device}
    if attack is None:
        nothing = {
            "norm": "none",
            "epsilon": 0.0,
            "threat": "none",
            "step_size": 0.0,
            "restarts": 0,
            "seed": 0,
        }
        return said | {"kind": "clean"} | nothing
    return said | {
        "kind": "transfer" if cell.transferred else attack.kind,
        "norm": attack.threat.norm,
        "epsilon": attack.threat.epsilon,
        "threat": attack.threat.constraint,
        "step_size": attack.effort.step_size,
        "restarts": attack.effort.restarts,
        "seed": attack.seed,
    }
