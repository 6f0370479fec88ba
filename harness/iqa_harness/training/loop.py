"""The training loop: settings and images in, a checkpoint out, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from iqa_harness.data.files.resized import resized_for_now
from iqa_harness.data.hashing import file_sha256
from iqa_harness.data.image_set import ImageSet
from iqa_harness.errors import TrainingError
from iqa_harness.machine.terminal import Meter
from iqa_harness.measures.correlation import degenerate, srocc
from iqa_harness.training.batches import Batch, Sample, epoch_order, train_batches, unit_labels, whole_batches
from iqa_harness.training.checkpoints import is_finished, sweep, write_checkpoints
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.environment import check_device, create_scaler, repeatable, reseed
from iqa_harness.training.figures import split_srocc
from iqa_harness.training.logs import StepLog, write_epochs
from iqa_harness.training.maps import FrozenViews, frozen_views, require_cacheable
from iqa_harness.training.optimisers import create_optimiser, rebuilds_every_epoch, set_rates
from iqa_harness.training.options import RunOptions
from iqa_harness.training.prefetch import Prefetched
from iqa_harness.training.prepare import calibrate_batch_norm, freeze_trunk, start_head, training_mode
from iqa_harness.training.state import (
    STATE,
    EpochLog,
    Partway,
    Progress,
    Training,
    averaged,
    load_state,
    save_state,
)
from iqa_harness.training.step import NotFinite, Stepper
from iqa_harness.training.trunks import Encoded
from iqa_harness.wording import in_words
from iqa_models import MissingWeights, QualityModel, TimmRegressor, create_model
from iqa_results.storage import write_whole

PROTOCOL = 1
"""Raised by a change of this package that gives other weights from equal settings."""
FAILURE = "failure.json"
"""What is known of a step whose loss was not finite."""


def train(
    config: TrainConfig,
    data: ImageSet,
    out: Path,
    *,
    backbone_weights: Path | str | None = None,
    run: RunOptions | None = None,
) -> Path:
    """Train a model on the ``train`` split, choose the epoch on ``val``, write a checkpoint.

    The ``test`` split is not read (but under the settings of authors who chose on it). Equal settings and
    images give equal weights, bit for bit, on one machine. A run that was interrupted or killed goes on
    after its last saved step and ends with the weights it would have had. A run that is finished already
    returns at once.

    Args:
        config: settings; see `load_preset`.
        data: images with a ``train`` and a ``val`` split.
        out: the checkpoint's folder; logs and, while unfinished, the run's state lie there too.
        backbone_weights: file the trunk starts from, instead of what the settings say.
        run: how the run is carried out.

    Returns:
        `out`, now a checkpoint.

    Raises:
        TrainingError: an empty split, an image smaller than the crop, a loss that is not finite, a device or
            precision that is not there, or a folder that belongs to another run.
        ModelError: the model cannot be built, or a checkpoint in `out` is damaged.
        DataError: an image cannot be read.
    """
    run = run or RunOptions()
    check_device(config, torch.device(run.device))
    _check_splits(config, data)
    identity = run_identity(config, data, backbone_weights)
    if is_finished(out, identity, run.overwrite):
        (out / STATE).unlink(missing_ok=True)
    else:
        if run.resume and not (out / STATE).exists():
            raise TrainingError(f"{out}: no unfinished run to go on with; leave --resume out to start one")
        out.mkdir(parents=True, exist_ok=True)
        with repeatable(config, torch.device(run.device)):
            _Run(config, data, out, identity, backbone_weights, run).finish()
    sweep(out)
    return out


def _check_splits(config: TrainConfig, data: ImageSet) -> None:
    """Refuse images that leave nothing to learn from, or no epoch to choose."""
    for name in ("train", config.select_on):
        if not len(data.split(name)):
            raise TrainingError(
                f"data set {data.card.name!r} has no {name} split: nothing to learn or choose from"
            )
    labels = data.split(config.select_on).labels
    reason = degenerate(labels, labels)
    if reason and config.keep == "best":
        raise TrainingError(
            f"data set {data.card.name!r}: the {config.select_on} split can choose no epoch, its SROCC does "
            f"not exist ({reason}); give it other images, or take the last epoch with keep=last"
        )


def run_identity(config: TrainConfig, data: ImageSet, backbone_weights: Path | str | None = None) -> str:
    """Return the sha256 of what decides the weights: settings, first weights, images and labels read.

    Raises:
        MissingWeights: the file of first weights is not there.
    """
    splits = {"train", "val", config.select_on}
    images = [[r.image_id, r.mos, r.split, r.sha256] for r in data.records if r.split in splits]
    content: list[object] = [PROTOCOL, config.identity(), data.card.mos_range, images]
    if backbone_weights is not None:
        if not Path(backbone_weights).is_file():
            raise MissingWeights(f"no file of backbone weights {backbone_weights}")
        content.append(file_sha256(Path(backbone_weights)))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class _Run:
    """One training run: what it works on, and the steps of it."""

    def __init__(
        self,
        config: TrainConfig,
        data: ImageSet,
        out: Path,
        identity: str,
        backbone_weights: Path | str | None,
        run: RunOptions,
    ) -> None:
        self.config, self.run, self.device = config, run, torch.device(run.device)
        self.out, self.identity = out, identity
        train_set, self.val_set, device = data.split("train"), data.split(config.select_on), self.device
        self.train_set = train_set
        self.crops_of = train_set if config.resize == "none" else resized_for_now(train_set, config.resize)
        self.labels = unit_labels(train_set).to(device)
        self.model = _create(config, backbone_weights).to(device)
        if config.trunk == "frozen":
            freeze_trunk(config, self.model)
        if config.cache_maps:
            require_cacheable(config, self.model)
        self.views: FrozenViews | None = None
        self.training = Training(
            self.model,
            create_optimiser(self.model, config),
            best={},
            average={},
            device=device,
            scaler=create_scaler(config, device),
        )
        self.stepper = Stepper(config, self.model, self.training)
        count = min(
            config.images_per_epoch or len(train_set) * config.patches, len(train_set) * config.patches
        )
        self.steps_per_epoch = -(-count // config.batch_size)
        self.steps = self.steps_per_epoch * config.epochs

    def finish(self) -> None:
        """Start or resume, run the epochs that are missing, write the checkpoint."""
        config = self.config
        with Meter(config.name, self.steps, show=self.run.progress) as reporter:
            for text in config.warnings():
                reporter.line(f"warning: {text}")
            progress, partway = self._begin(reporter)
            done = (progress.epochs_done * self.steps_per_epoch) + partway.steps
            log = StepLog(self.out, steps=self.run.log_steps, tensorboard=self.run.tensorboard, done=done)
            try:
                while progress.epochs_done < config.epochs and not _is_stalled(progress, config):
                    progress = self._epoch(progress, partway, reporter, log)
                    partway = Partway()
                    self._store(progress)
                    log.epoch(progress.log[-1])
                    reporter.line(_line(progress, config))
            finally:
                log.close()
            if progress.epochs_done < config.epochs:
                reporter.line(f"stopped early: {config.patience} epochs without a better one")
            write_checkpoints(self.out, config, self.training, progress, (self.train_set, self.val_set))
            (self.out / STATE).unlink()
            (self.out / FAILURE).unlink(missing_ok=True)
            reporter.line(f"{_kept(progress, config)}; checkpoint in {self.out}")

    def _begin(self, reporter: Meter) -> tuple[Progress, Partway]:
        """Restore a saved state, or do what comes before the first step."""
        config = self.config
        if (self.out / STATE).exists():
            try:
                stored = load_state(self.out / STATE, self.identity)
            except TrainingError:
                if not self.run.overwrite:
                    raise
            else:
                if rebuilds_every_epoch(config):
                    epoch = stored.progress.epochs_done + bool(stored.partway.steps)
                    self.training.optimiser = create_optimiser(self.model, config, max(1, epoch))
                stored.restore(self.training)
                self.views = self._frozen_views()
                inside = f", step {stored.partway.steps} of the next" if stored.partway.steps else ""
                reporter.line(f"goes on after epoch {stored.progress.epochs_done} of {config.epochs}{inside}")
                return stored.progress, stored.partway
        progress = self._first()
        self._store(progress)
        reporter.line(_line(progress, config))
        return progress, Partway()

    def _first(self) -> Progress:
        began = time.perf_counter()
        if self.config.batch_norm == "calibrated":
            reseed(_epoch_seed(self.config.seed, 0), self.device)  # a layer before it may draw
            batches = self._batches(epoch=0)
            pixels = (crops for batch in batches if isinstance(crops := batch.crops, Tensor))
            calibrate_batch_norm(self.model, (crops.to(self.device) for crops in pixels))
        self.views = self._frozen_views()
        if isinstance(self.model, TimmRegressor):
            self._start_head(self.model)
        elif self.config.head_start != "random":
            raise TrainingError(
                f"{self.config.name}: {self.config.model!r} has no pooled head, head_start must be 'random'"
            )
        if self.config.ema_decay:
            self.training.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.training.best = _copy(self.model)
        entry = EpochLog(
            epoch=0,
            loss=None,
            val_srocc=self._val_srocc(),
            seconds=round(time.perf_counter() - began, 1),
        )
        return Progress(identity=self.identity, log=(entry,), best_epoch=0)

    def _start_head(self, model: TimmRegressor) -> None:
        """Begin a pooled head on whole images, or on the crops whose features are there already."""
        low, high = model.spec.score_range
        alpha = self.config.ridge_alpha if self.config.head_start == "ridge" else None
        if self.views is not None:
            chosen = [sample.image for sample in self.views.samples]
            batches: Iterator[Tensor | Encoded] = (_moved(e, self.device) for e in self.views.features())
        else:
            chosen = list(dict.fromkeys(sample.image for sample in self._order(epoch=0)))
            whole = whole_batches(self.crops_of.subset(chosen), 8)
            batches = (images.to(self.device) for images in whole)
        start_head(model, batches, low + (high - low) * self.labels[chosen], ridge_alpha=alpha)

    def _frozen_views(self) -> FrozenViews | None:
        if not self.config.cache_maps:
            return None
        crops, samples = self._drawn_batches(epoch=0), self._order(epoch=0)
        return frozen_views(self.model, crops, samples, self.val_set, self.device)

    def _val_srocc(self) -> float | None:
        if self.views is None:
            return split_srocc(self.model, self.val_set, self.device)
        return srocc(self.views.scores(self.model, self.device), self.val_set.labels).value

    def _epoch(self, progress: Progress, partway: Partway, reporter: Meter, log: StepLog) -> Progress:
        epoch = progress.epochs_done + 1
        rates = self._pass(progress, partway, reporter, log)
        began = time.perf_counter()
        with averaged(self.training):
            value = self._val_srocc()
            means = {name: total / partway.seen for name, total in partway.totals.items()}
            entry = EpochLog(
                epoch=epoch,
                loss=means.pop("loss"),
                val_srocc=value,
                seconds=round(partway.seconds + time.perf_counter() - began, 1),
                rates=rates,
                terms=means,
                images_per_second=round(partway.seen / max(partway.seconds, 1e-9), 2),
                data_share=round(partway.waited / max(partway.seconds, 1e-9), 4),
            )
            is_best = _is_better(entry, progress.log[progress.best_epoch])
            if is_best:
                self.training.best = _copy(self.model)
        return Progress(
            identity=self.identity,
            log=(*progress.log, entry),
            best_epoch=epoch if is_best else progress.best_epoch,
        )

    def _pass(self, progress: Progress, partway: Partway, reporter: Meter, log: StepLog) -> dict[str, float]:
        """Run one epoch's steps behind those that are done; return the rates of the last one."""
        config, epoch = self.config, progress.epochs_done + 1
        training_mode(
            self.model, live_batch_norm=config.batch_norm == "live", frozen_trunk=config.trunk == "frozen"
        )
        if partway.steps == 0:
            # Dropout draws from the global generator: set anew each epoch, saved with the state within one.
            reseed(_epoch_seed(config.seed, epoch), self.device)
            if rebuilds_every_epoch(config):
                self.training.optimiser = create_optimiser(self.model, config, epoch)
        before = partway.model_copy()
        first = (epoch - 1) * self.steps_per_epoch
        rates: dict[str, float] = {}
        began = time.perf_counter()
        batches = Prefetched(self._batches(epoch, skip=partway.steps))
        try:
            for number, batch in enumerate(batches, start=partway.steps):
                rates = set_rates(self.training.optimiser, config, first + number, self.steps_per_epoch)
                generators = torch.get_rng_state()
                crops, labels = _moved(batch.crops, self.device), self.labels[batch.indices]
                try:
                    result = self.stepper(crops, labels, self._ids(epoch, batch))
                except NotFinite as error:
                    torch.set_rng_state(generators)
                    self._fail(error, progress, partway, epoch, number, batch)
                partway.add(result.terms, len(batch.samples))
                partway.seconds = before.seconds + time.perf_counter() - began
                partway.waited = before.waited + batches.waited
                if self.run.log_steps or self.run.tensorboard:
                    lr = {f"lr_{name}": rate for name, rate in rates.items()}
                    values = {"epoch": epoch, **result.terms, "gradient_norm": result.gradient_norm, **lr}
                    log.step(first + number + 1, values)
                every = self.run.save_every
                if every and (number + 1) % every == 0 and number + 1 < self.steps_per_epoch:
                    save_state(self.out / STATE, progress, partway, self.training)
                reporter.at(first + number + 1, note=f"loss {result.terms['loss']:.4f}")
        finally:
            batches.close()
        return rates

    def _fail(
        self, error: NotFinite, progress: Progress, partway: Partway, epoch: int, number: int, batch: Batch
    ) -> None:
        """Keep the state before a step that cannot be done, say what was in it, and stop."""
        save_state(self.out / STATE, progress, partway, self.training)
        ids = [self.train_set.records[index].image_id for index in batch.indices]
        record = {"epoch": epoch, "step": number + 1, "error": str(error), "images": ids}
        write_whole(self.out / FAILURE, (json.dumps(record, indent=1) + "\n").encode())
        shown = ", ".join(ids[:4]) + (f" and {len(ids) - 4} more" if len(ids) > 4 else "")
        raise NotFinite(
            f"{self.config.name}: {error} in epoch {epoch}, step {number + 1} (images {shown}); "
            f"the state before it is in {self.out / STATE}, all names in {FAILURE}. Take lower learning "
            "rates and --overwrite, or look at the images"
        ) from error

    def _ids(self, epoch: int, batch: Batch) -> list[str]:
        records = self.train_set.records
        return [f"{epoch}/{records[s.image].image_id}/{s.patch}" for s in batch.samples]

    def _order(self, epoch: int) -> list[Sample]:
        config, records = self.config, self.train_set.records
        if self.views is None:
            return epoch_order(records, config.seed, epoch, config.images_per_epoch, config.patches)
        known = set(self.views.samples)
        every = epoch_order(records, config.seed, epoch, None, config.patches)
        return [sample for sample in every if sample in known]

    def _batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        if self.views is None:
            return self._drawn_batches(epoch, skip)
        return self.views.batches(self._order(epoch), self.config.batch_size, skip)

    def _drawn_batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        config = self.config
        return train_batches(
            self.crops_of,
            self._order(epoch),
            seed=config.seed,
            epoch=epoch,
            batch_size=config.batch_size,
            crop=config.crop,
            flip=config.flip,
            skip=skip,
        )

    def _store(self, progress: Progress) -> None:
        save_state(self.out / STATE, progress, Partway(), self.training)
        write_epochs(self.out, progress.log)


def _create(config: TrainConfig, backbone_weights: Path | str | None) -> QualityModel:
    options = dict(config.options)
    if backbone_weights is not None:
        options = {name: value for name, value in options.items() if name != "pretrained"}
        options["backbone_weights"] = str(backbone_weights)
    return create_model(config.model, **options)


def _moved(crops: Tensor | Encoded, device: torch.device) -> Tensor | Encoded:
    return tuple(part.to(device) for part in crops) if isinstance(crops, tuple) else crops.to(device)


def _copy(model: QualityModel) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _is_better(entry: EpochLog, best: EpochLog) -> bool:
    """Whether an epoch takes the place of the best one; while none orders the images, the later one does."""
    if entry.val_srocc is None or best.val_srocc is None:
        return best.val_srocc is None
    return entry.val_srocc > best.val_srocc


def _kept(progress: Progress, config: TrainConfig) -> str:
    if progress.log[progress.best_epoch].val_srocc is None:
        return f"no epoch orders the {config.select_on} images, the last one is kept"
    best = f"epoch {progress.best_epoch} is the best on {config.select_on}"
    return best if config.keep == "best" else f"{best}, epoch {progress.epochs_done} is kept"


def _is_stalled(progress: Progress, config: TrainConfig) -> bool:
    return bool(config.patience) and progress.epochs_done - progress.best_epoch >= config.patience


def _epoch_seed(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"dropout/{seed}/{epoch}".encode()).digest()[:8], "big") >> 1


def _line(progress: Progress, config: TrainConfig) -> str:
    entry = progress.log[-1]
    loss = "      -" if entry.loss is None else f"{entry.loss:7.4f}"
    srocc = "undefined" if entry.val_srocc is None else f"{entry.val_srocc:.3f}"
    left = (config.epochs - entry.epoch) * entry.seconds if entry.epoch else 0
    eta = f"  {in_words(left)} left" if left else ""
    said = f"loss {loss}  {config.select_on} SROCC {srocc}  {entry.seconds:.0f} s{eta}"
    return f"epoch {entry.epoch}/{config.epochs}  {said}"
