"""The training loop: settings and images in, a checkpoint out, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iqa_harness.data.image_set import ImageSet
from iqa_harness.errors import TrainingError
from iqa_harness.training.batches import epoch_order, train_batches, unit_labels, whole_batches
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.losses import one_cycle, quality_loss
from iqa_harness.training.prepare import calibrate_batch_norm, start_head, training_mode
from iqa_harness.training.reporting import Reporter
from iqa_harness.training.state import STATE, EpochLog, Progress, load_state, save_state
from iqa_harness.training.validate import split_srocc
from iqa_models import (
    BadCheckpoint,
    QualityModel,
    SRMQuality,
    TimmRegressor,
    create_model,
    load_checkpoint,
    save_checkpoint,
)
from iqa_models.checkpoint import CARD, read_card, write_atomically

PROTOCOL = 1
"""Raised by a change of this package that gives other weights from equal settings."""
LOG = "log.jsonl"
"""Name of the log beside the checkpoint, one JSON object an epoch."""


def train(
    config: TrainConfig, data: ImageSet, out: Path, *, progress: bool = False, overwrite: bool = False
) -> Path:
    """Train a model on the ``train`` split, choose the epoch on ``val``, write a checkpoint.

    The ``test`` split is never read. Equal settings and images give equal weights, bit for bit, on one
    machine. A run that was interrupted goes on after its last whole epoch and ends with the weights it
    would have had. A run that is finished already returns at once.

    Args:
        config: settings; see `load_preset`.
        data: images with a ``train`` and a ``val`` split.
        out: the checkpoint's folder; a log and, while unfinished, the run's state lie there too.
        progress: whether to report on stderr.
        overwrite: whether a checkpoint or state of other settings or images in `out` is replaced.

    Returns:
        `out`, now a checkpoint.

    Raises:
        TrainingError: an empty split, an image smaller than the crop, a loss that is not finite, or
            a folder that belongs to another run.
        ModelError: the model cannot be built, or a checkpoint in `out` is damaged.
        DataError: an image cannot be read.
    """
    train_set, val_set = data.split("train"), data.split("val")
    for name, part in (("train", train_set), ("val", val_set)):
        if not len(part):
            raise TrainingError(
                f"data set {data.card.name!r} has no {name} split: nothing to learn or choose from"
            )
    identity = run_identity(config, data)
    if _is_finished(out, identity, overwrite):
        (out / STATE).unlink(missing_ok=True)
        return out
    out.mkdir(parents=True, exist_ok=True)
    with _repeatable(config.threads):
        return _Run(config, train_set, val_set, out, identity).finish(progress, overwrite)


def run_identity(config: TrainConfig, data: ImageSet) -> str:
    """Return the sha256 of what decides the weights: settings, and the images and labels of train and val."""
    images = [[r.image_id, r.mos, r.split, r.sha256] for r in data.records if r.split in ("train", "val")]
    content = [PROTOCOL, config.model_dump(mode="json"), data.card.mos_range, images]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class _Run:
    """One training run: what it works on, and the steps of it."""

    def __init__(
        self, config: TrainConfig, train_set: ImageSet, val_set: ImageSet, out: Path, identity: str
    ) -> None:
        self.config = config
        self.train_set, self.val_set = train_set, val_set
        self.out, self.identity = out, identity
        self.labels = unit_labels(train_set)
        self.model = create_model(config.model, **config.options)
        self.optimiser = _optimiser(self.model, config)
        count = min(config.images_per_epoch or len(train_set), len(train_set))
        self.steps_per_epoch = -(-count // config.batch_size)
        self.steps = self.steps_per_epoch * config.epochs

    def finish(self, show: bool, overwrite: bool) -> Path:
        """Start or resume, run the epochs that are missing, write the checkpoint."""
        with Reporter(self.config.name, self.steps, show=show) as reporter:
            resumed = self._resume(overwrite)
            if resumed is not None:
                progress, best = resumed
                reporter.line(f"goes on after epoch {progress.epochs_done} of {self.config.epochs}")
            else:
                progress, best = self._first()
                self._store(progress, best)
                reporter.line(_line(progress, self.config))
            while progress.epochs_done < self.config.epochs:
                progress, best = self._epoch(progress, best, reporter)
                self._store(progress, best)
                reporter.line(_line(progress, self.config))
            self._write(progress, best)
            (self.out / STATE).unlink()
            reporter.line(f"epoch {progress.best_epoch} is the best on validation; checkpoint in {self.out}")
        return self.out

    def _resume(self, overwrite: bool) -> tuple[Progress, dict[str, Tensor]] | None:
        if not (self.out / STATE).exists():
            return None
        try:
            return load_state(self.out / STATE, self.identity, self.model, self.optimiser)
        except TrainingError:
            # Refused before anything was restored, so the run can start afresh.
            if overwrite:
                return None
            raise

    def _first(self) -> tuple[Progress, dict[str, Tensor]]:
        began = time.perf_counter()
        if self.config.batch_norm == "calibrated":
            calibrate_batch_norm(self.model, self._views(epoch=0))
        if isinstance(self.model, TimmRegressor):
            low, high = self.model.spec.score_range
            alpha = self.config.ridge_alpha if self.config.head_start == "ridge" else None
            chosen = self._order(epoch=0)
            start_head(
                self.model,
                whole_batches(self.train_set.subset(chosen), 8),
                low + (high - low) * self.labels[chosen],
                ridge_alpha=alpha,
            )
        elif self.config.head_start != "random":
            raise TrainingError(
                f"{self.config.name}: {self.config.model!r} has no pooled head, head_start must be 'random'"
            )
        entry = EpochLog(
            epoch=0,
            loss=None,
            val_srocc=split_srocc(self.model, self.val_set),
            seconds=round(time.perf_counter() - began, 1),
        )
        return Progress(identity=self.identity, log=(entry,), best_epoch=0), _copy(self.model)

    def _epoch(
        self, progress: Progress, best: dict[str, Tensor], reporter: Reporter
    ) -> tuple[Progress, dict[str, Tensor]]:
        began, epoch = time.perf_counter(), progress.epochs_done + 1
        loss = self._pass(epoch, reporter)
        entry = EpochLog(
            epoch=epoch,
            loss=loss,
            val_srocc=split_srocc(self.model, self.val_set),
            seconds=round(time.perf_counter() - began, 1),
        )
        is_best = _rank(entry) > _rank(progress.log[progress.best_epoch])
        progress = Progress(
            identity=self.identity,
            log=(*progress.log, entry),
            best_epoch=epoch if is_best else progress.best_epoch,
        )
        return progress, _copy(self.model) if is_best else best

    def _pass(self, epoch: int, reporter: Reporter) -> float:
        """Run one epoch's steps; return the mean loss an image."""
        config, total, seen = self.config, 0.0, 0
        low, high = self.model.spec.score_range
        parameters = list(self.model.parameters())
        training_mode(self.model, live_batch_norm=config.batch_norm == "live")
        # Dropout draws from the global generator, whose state no file holds: set it anew each epoch.
        torch.default_generator.manual_seed(_epoch_seed(config.seed, epoch))
        first = (epoch - 1) * self.steps_per_epoch
        for step, (images, indices) in enumerate(self._batches(epoch), start=first):
            factor = one_cycle(step, self.steps, warmup=config.warmup)
            for group in self.optimiser.param_groups:
                group["lr"] = factor * group["peak_lr"]
            self.optimiser.zero_grad(set_to_none=True)
            raw, auxiliary = _forward(self.model, images)
            scores = (raw - low) / (high - low)
            loss = quality_loss(
                scores, self.labels[indices], beta=config.smooth_l1_beta, plcc_weight=config.plcc_weight
            )
            loss = loss + sum(auxiliary, torch.zeros(()))
            torch.autograd.backward(loss)
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                raise TrainingError(
                    f"{config.name}: loss {loss.item():g}, gradient norm {norm.item():g} in epoch {epoch}"
                )
            self.optimiser.step()
            total, seen = total + loss.item() * len(indices), seen + len(indices)
            reporter.at(step + 1)
        return total / seen

    def _order(self, epoch: int) -> list[int]:
        return epoch_order(self.train_set.records, self.config.seed, epoch, self.config.images_per_epoch)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, list[int]]]:
        config = self.config
        return train_batches(
            self.train_set,
            self._order(epoch),
            seed=config.seed,
            epoch=epoch,
            batch_size=config.batch_size,
            crop=config.crop,
            flip=config.flip,
        )

    def _views(self, epoch: int) -> Iterator[Tensor]:
        return (images for images, _ in self._batches(epoch))

    def _store(self, progress: Progress, best: dict[str, Tensor]) -> None:
        save_state(self.out / STATE, progress, self.model, self.optimiser, best)
        lines = "".join(entry.model_dump_json() + "\n" for entry in progress.log)
        write_atomically(self.out / LOG, lines.encode())

    def _write(self, progress: Progress, best: dict[str, Tensor]) -> None:
        self.model.load_state_dict(best)
        data = self.train_set
        trained = f"trained on {data.card.name} ({data.card.label}), {len(data)} images"
        self.model.spec = self.model.spec.replace(notes=(*self.model.spec.notes, trained))
        save_checkpoint(
            self.model.eval(),
            self.out,
            training={
                "identity": self.identity,
                "config": self.config.model_dump(mode="json"),
                "data": data.card.name,
                "data_label": data.card.label,
                "data_fingerprint": data.fingerprint,
                "train_images": len(self.train_set),
                "val_images": len(self.val_set),
                "best_epoch": progress.best_epoch,
                "log": [entry.model_dump(mode="json") for entry in progress.log],
                "seconds": round(sum(entry.seconds for entry in progress.log), 1),
                "packages": {name: _version(name) for name in _PACKAGES},
            },
        )


_PACKAGES = ("iqa-harness", "torch", "timm", "numpy", "scipy")


@contextmanager
def _repeatable(threads: int) -> Iterator[None]:
    """Fix what decides rounding and dropout inside the block; put everything back after it."""
    threads_before = torch.get_num_threads()
    strict_before = torch.are_deterministic_algorithms_enabled()
    warn_before = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # its attribute is a property no type checker sees
    fill_before = memory.fill_uninitialized_memory
    try:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        # Filling fresh memory only helps to find an operator that reads it; it costs a fifth of the time.
        memory.fill_uninitialized_memory = False
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(strict_before, warn_only=warn_before)
        memory.fill_uninitialized_memory = fill_before


def _is_finished(out: Path, identity: str, overwrite: bool) -> bool:
    if not (out / CARD).exists():
        return False
    try:
        if read_card(out).training.get("identity") == identity:
            load_checkpoint(out)  # damaged weights are told now, not when they are used
            return True
    except BadCheckpoint:
        if not overwrite:
            raise
        return False
    if not overwrite:
        raise TrainingError(
            f"{out} holds a checkpoint of other settings or images; overwrite it or train elsewhere"
        )
    return False


def _optimiser(model: QualityModel, config: TrainConfig) -> torch.optim.AdamW:
    trunk = [p for name, p in model.named_parameters() if name.startswith("trunk.")]
    head = [p for name, p in model.named_parameters() if not name.startswith("trunk.")]
    groups = [
        {"params": parameters, "lr": peak, "peak_lr": peak}
        for parameters, peak in ((trunk, config.lr_trunk), (head, config.lr_head))
        if parameters
    ]
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def _forward(model: QualityModel, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return raw scores (B,) and a model's own weighted auxiliary losses (SRM eq. 21, 27, 28)."""
    if isinstance(model, SRMQuality):
        scores, losses = model.forward_with_losses(images)
        return scores, list(losses.values())
    return model(images), []


def _copy(model: QualityModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _rank(entry: EpochLog) -> float:
    # Constant scores order nothing: worse than any order.
    return -2.0 if entry.val_srocc is None else entry.val_srocc


def _epoch_seed(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"dropout/{seed}/{epoch}".encode()).digest()[:8], "big") >> 1


def _line(progress: Progress, config: TrainConfig) -> str:
    entry = progress.log[-1]
    loss = "      -" if entry.loss is None else f"{entry.loss:7.4f}"
    srocc = "undefined" if entry.val_srocc is None else f"{entry.val_srocc:.3f}"
    return f"epoch {entry.epoch}/{config.epochs}  loss {loss}  val SROCC {srocc}  {entry.seconds:.0f} s"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None  # run from the source tree
