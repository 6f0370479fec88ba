"""How the gradients of a run's models are computed: as the run began, or by measurement at its start."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from torch import Tensor

from iqa_attacks import AttackFailed
from iqa_harness.cells.compute import to_tensor
from iqa_harness.cells.estimate import Experience
from iqa_harness.cells.plan import Work
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.machine.devices import device_name, same_kernels
from iqa_harness.machine.memory import fitting_chunk
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.tuning import IMAGES, PLAIN, Tuning, choices_of, known, tune
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
    others: Callable[[], Iterable[RunManifest]] = tuple,
) -> tuple[Tuning, ...]:
    """Return the runtime's choices, the run's former ones, and what is measured now for the other models.

    A run goes on as it began, and so do cells that another run left in the store: a model with attacked cells
    there and no choice stays without one. With `tune` off only choices that are given in the runtime are
    used.

    Args:
        work: what is computed.
        entrants: its models, on the runtime's first device.
        runtime: devices, chunk, and what may be chosen.
        former: the manifest of an earlier start.
        missing: keys of the cells to compute.
        executor: name of the executor.
        others: returns the manifests of the store, of whose cells some may be this run's.

    Raises:
        RunError: stored cells of a model were attacked with other gradients than are asked for.
    """
    choices, device = list(runtime.choices), runtime.devices[0]
    attacked = {
        e.label: [c for c in work.cells if c.label == e.label and c.attack and c.surrogate is None]
        for e in entrants
    }
    stored = {label: {c.key for c in cells if c.key not in missing} for label, cells in attacked.items()}
    hashes = {entrant.sha256: stored[entrant.label] for entrant in entrants if stored[entrant.label]}
    earlier = _earlier(hashes, runtime, former, others)
    if runtime.tune == "off":
        return tuple(choices)
    for choice in earlier:
        if known(choices, choice.model_sha256, choice.device) is None:
            choices.append(choice)
    if executor not in HERE:
        return tuple(choices)
    for entrant in entrants:
        todo = [cell for cell in attacked[entrant.label] if cell.key in missing]
        if (
            not (todo and entrant.model.spec.has_gradient)
            or stored[entrant.label]
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


def _earlier(
    begun: Mapping[str, Collection[str]],
    runtime: Runtime,
    former: RunManifest | None,
    others: Callable[[], Iterable[RunManifest]],
) -> list[Tuning]:
    """Return the run's former choices, and those by which stored cells were made that it did not make itself.

    Args:
        begun: by a model's hash, the keys of its stored attacked cells.
        runtime: as of `choose`.
        former: as of `choose`.
        others: as of `choose`.

    Raises:
        RunError: the runtime asks for others.
    """
    found = list(choices_of(former)) if former else []
    runs = list(others()) if begun else []
    for sha256, keys in begun.items():
        own = [former] if former and _made(former, keys) else [run for run in runs if _made(run, keys)]
        theirs = [choice for run in own for choice in choices_of(run) if choice.model_sha256 == sha256]
        there, given = theirs[0].form if theirs else PLAIN, known(runtime.choices, sha256)
        wanted = given.form if given else PLAIN if runtime.tune == "off" else there
        if own and wanted != there:
            name = next(m.name for run in own for m in run.models if m.sha256 == sha256)
            raise RunError(
                f"stored cells of {name!r} were attacked with gradients of {there.words}, now those of "
                f"{wanted.words} are asked for: go on as they began (without --tune off), or choose another "
                "--store"
            )
        found += theirs
    return found


def _made(run: RunManifest, keys: Collection[str]) -> bool:
    """Return whether a run made some of these cells, or may have: one that goes on has not said so yet."""
    return any(c.key in keys and (c.status == "done" or run.status == "running") for c in run.cells)


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
