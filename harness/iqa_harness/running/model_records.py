"""What a run records of its models: card, weights, where they came from, the checks before and after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import JsonValue
from torch import Tensor

from iqa_attacks import AttackFailed, score, score_and_gradient
from iqa_attacks.seeding import seeded
from iqa_harness.cells.compute import to_tensor
from iqa_harness.cells.plan import Work
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.sources import sources_of
from iqa_harness.evidence.check import Check
from iqa_harness.evidence.model_checks import (
    AGREES,
    DRIFT,
    FIRST_IMAGES,
    agrees_as_first,
    blocked_by,
    check_again,
    check_model,
    checked_images,
)
from iqa_harness.evidence.probes import probe_model
from iqa_harness.machine.devices import device_name, out_of_memory
from iqa_harness.machine.runtime import Runtime
from iqa_models import QualityModel
from iqa_results import ModelRecord, PluginRecord, RunManifest, peak_flops
from iqa_suites import Suite


def model_record(
    entrant: Entrant,
    work: Work,
    runtime: Runtime,
    former: RunManifest | None,
    bare: str | None = None,
) -> ModelRecord:
    """Describe a model and check it, unless an earlier start has and nothing is to be computed on it.

    Args:
        entrant: the model, on the runtime's device.
        work: what is computed.
        runtime: devices.
        former: the manifest of such a start.
        bare: name of the model that it defends.
    """
    sha256 = entrant.sha256
    before = next((m for m in former.models if m.sha256 == sha256), None) if former else None
    checks: Mapping[str, JsonValue]
    if before is not None:
        checks = before.checks
    else:
        checks = {name: check._asdict() for name, check in measured_checks(entrant, work, runtime).items()}
    return ModelRecord(
        name=entrant.label,
        sha256=sha256,
        card=entrant.card.model_dump(mode="json"),
        checkpoint=str(entrant.checkpoint) if entrant.checkpoint else None,
        checks=dict(checks),
        argument=entrant.argument,
        bare=bare,
        plugins=tuple(_plugin_record(path) for path in entrant.plugins),
        backbone_weights=str(entrant.backbone_weights) if entrant.backbone_weights else None,
        flops=before.flops if before is not None else _operations(entrant.model, work, runtime.devices[0]),
    )


def _operations(model: QualityModel, work: Work, device: str) -> tuple[int, int] | None:
    """Count a model's operations on the first image, where the device has a peak to compare them with."""
    if peak_flops(device_name(device)) is None or not model.spec.has_gradient:
        return None
    with suppress(AttackFailed):  # no gradient, no share: its attacks say why
        return operations(model, to_tensor(work.images.read(0), device))
    return None


def operations(model: QualityModel, image: Tensor) -> tuple[int, int]:
    """Return the operations of one evaluation and of one input gradient (its evaluation included).

    Convolutions and matrix products, a multiply-add as two; all else is too little to count. What a
    model computes twice to save memory counts twice.

    Args:
        model: in eval mode.
        image: (3, H, W) on its device.
    """
    from torch.utils.flop_counter import FlopCounterMode  # loads triton where that is installed

    counts = []
    for compute in (score, score_and_gradient):
        with seeded(0, torch.device(image.device)), FlopCounterMode(display=False) as counted:
            compute(model, image.unsqueeze(0), chunk=1)
        counts.append(int(counted.get_total_flops()))
    return counts[0], counts[1]


def _plugin_record(path: Path) -> PluginRecord:
    (_, sha256), *helpers = sources_of(path).hashes().items()
    return PluginRecord(path=str(path), sha256=sha256, helpers=dict(helpers))


def measured_checks(entrant: Entrant, work: Work, runtime: Runtime) -> dict[str, Check]:
    """Check and probe a model, which is on the runtime's device, on images spread over a plan.

    It is not probed if it fails a check without which no number can be made: see `blocked_by`.
    """
    device = runtime.devices[0]
    return _checks(entrant, _batch(work.images, device), work.suite, device)


def measured_as_first(entrant: Entrant, work: Work, runtime: Runtime) -> dict[str, Check]:
    """Check and probe a model as the first edition did: on the plan's first images."""
    device = runtime.devices[0]
    batch = _batch(work.images, device, range(min(FIRST_IMAGES, len(work.images))))
    checks = _checks(entrant, batch, work.suite, device)
    if AGREES in checks:
        checks[AGREES] = agrees_as_first(entrant.model, batch, draws=work.suite.eot_samples)
    return checks


class Before(NamedTuple):
    """What is needed to measure models again after their attacks."""

    images: ImageSet
    """The attacked ones."""
    draws: int | None
    """Evaluations averaged for a stochastic model."""
    checks: Mapping[str, Mapping[str, Any]]
    """By model, what `check_model` measured before; of it `gradient_agrees` is read."""

    def compare(
        self,
        label: str,
        model: QualityModel,
        device: str,
        copy: QualityModel | None,
        stored: Callable[[], str | None] = lambda: None,
        elsewhere: Check | None = None,
    ) -> Check:
        """Measure a model again; see `check_again`.

        Args:
            label: its name in the run.
            model: it, on the device, after all its calls.
            device: torch device.
            copy: what attacks asked for gradients in its place.
            stored: says which stored clean score is no longer the model's.
            elsewhere: what other processes measured of their copies of it, which made the attacks: one here
                that made none tells nothing beside those, but whether scores are kept.
        """
        try:
            check = elsewhere or check_again(
                model, _batch(self.images, device), self.checks[label], draws=self.draws, copy=copy
            )
            words = stored()
        except Exception as error:  # noqa: BLE001 - a model that no longer works is a finding; rows are stored
            detail = f"the model could not be measured again: {type(error).__name__}: {error}"
            return Check(None, DRIFT, out_of_memory(error), detail)
        return check if words is None else Check(None, check.threshold, False, words)


def _batch(images: ImageSet, device: str, places: Sequence[int] | None = None) -> list[Tensor]:
    """Return the images that models are checked on: of one size, spread over the attacked ones."""
    places = checked_images(len(images)) if places is None else places
    pixels = [to_tensor(images.read(i), device) for i in places]
    same_size = [image for image in pixels if image.shape == pixels[0].shape]
    return same_size if len(same_size) > 1 else [pixels[0], pixels[0].flip(-1)]


def _checks(entrant: Entrant, batch: Sequence[Tensor], suite: Suite, device: str) -> dict[str, Check]:
    """Check and probe a model on some images, on two of them if memory does not hold more."""
    draws = suite.eot_samples
    try:
        checks = check_model(entrant.model, batch, draws=draws)
        if blocked_by(checks):
            return checks
        settings = next((a for a in suite.own_attacks if a.kind == "pgd"), None)
        attack = settings.attack(suite.main_epsilon, suite.seed, draws) if settings else None
        return checks | probe_model(entrant.model, batch, attack, suite.main_epsilon, draws)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        if len(batch) > 2:
            return _checks(entrant, batch[:2], suite, device)
        detail = f"{device} has no room for two images at once ({error})"
        return {"finite_scores": Check(None, 0, False, detail)}
