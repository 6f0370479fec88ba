"""How the gradients of a run's models are computed: as the run began, or by measurement at its start."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

from torch import Tensor

from iqa_attacks import AttackFailed
from iqa_harness.cells.compute import to_tensor
from iqa_harness.cells.estimate import Experience
from iqa_harness.cells.plan import Work
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.machine.devices import device_name, same_kernels
from iqa_harness.machine.memory import fitting_chunk
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.tuning import IMAGES, Tuning, choices_of, known, tune
from iqa_models import QualityModel
from iqa_results import RunManifest

HERE = ("inline", "processes")
"""Executors whose workers run where this process does; nothing measured here holds for those of others."""


def choose(
    work: Work,
    entrants: Sequence[Entrant],
    runtime: Runtime,
    former: RunManifest | None,
    missing: Collection[str],
    executor: str,
) -> tuple[Tuning, ...]:
    """Return the runtime's choices, the run's former ones, and what is measured now for the other models.

    A run goes on as it began: a model with attacked cells in it and no choice stays without one. With `tune`
    off only choices that are given in the runtime are used.

    Args:
        work: what is computed.
        entrants: its models, on the runtime's first device.
        runtime: devices, chunk, and what may be chosen.
        former: the manifest of an earlier start.
        missing: keys of the cells to compute.
        executor: name of the executor.
    """
    choices = list(runtime.choices)
    if runtime.tune == "off":
        return tuple(choices)
    device = runtime.devices[0]
    for earlier in choices_of(former) if former else ():
        if known(choices, earlier.model_sha256, earlier.device) is None:
            choices.append(earlier)
    if executor not in HERE:
        return tuple(choices)
    for entrant in entrants:
        attacked = [c for c in work.cells if c.label == entrant.label and c.attack and c.surrogate is None]
        todo = [cell for cell in attacked if cell.key in missing]
        begun = len(todo) < len(attacked)
        if (
            not (todo and entrant.model.spec.has_gradient)
            or begun
            or known(choices, entrant.sha256, device_name(device))
        ):
            continue
        pixels = _images(work, device)
        with same_kernels(device):  # those the run itself computes with
            choice = tune(
                entrant.model,
                entrant.sha256,
                pixels,
                chunk=chunk_of(entrant.model, pixels, runtime),
                mode=runtime.tune,
                gradients=Experience(()).of(todo, work.suite.sha256).backwards,
            )
        if choice.plain_ms is not None:
            choices.append(choice)
    return tuple(choices)


def chunk_of(model: QualityModel, pixels: Sequence[Tensor], runtime: Runtime) -> int:
    """Return the most images in one pass: as asked for, or as many as the GPU holds."""
    if not runtime.chunk_by_memory:
        return runtime.at_most
    with suppress(AttackFailed):  # a model without gradients: its attacks say so
        return fitting_chunk(model, pixels, runtime.at_most)
    return runtime.at_most


def _images(work: Work, device: str) -> list[Tensor]:
    """Return some images of one size, spread over the plan."""
    count = len(work.images)
    places = sorted({round(i * (count - 1) / max(1, IMAGES - 1)) for i in range(IMAGES)})
    pixels = [to_tensor(work.images.read(place), device) for place in places]
    return [image for image in pixels if image.shape == pixels[0].shape]
