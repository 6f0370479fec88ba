"""Settings of a training run, read from TOML, strict: every key known, every value in range."""

from __future__ import annotations

import fnmatch
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from iqa_errors.toml_text import read_toml
from iqa_harness.data.files.resized import RULES
from iqa_harness.errors import TrainingError
from iqa_harness.training.robust_settings import (
    RECORDED,
    ROBUST,
    NotRobust,
    Robust,
    Settings,
    explained,
    nested,
)
from iqa_results.errors import ResultsError
from iqa_results.storage import require_name

Loss = Literal["smooth_l1_plcc", "l1", "l2", "srcc", "rank", "pairwise", "soft_spearman"]
Schedule = Literal["one_cycle", "cosine", "multistep", "constant"]


class TrainConfig(Settings):
    """Everything that decides the weights, next to the images themselves."""

    name: str
    """Name of these settings; the checkpoint's folder carries it."""
    model: str
    """Registered model, as `create_model` takes it."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of the model's builder; `seed` among them draws the random weights."""
    data: str = "demo"
    """Data set these settings are meant for; `--data` opens another."""
    seed: int = Field(default=0, ge=0)
    """Of order, crops, flips, dropout and random starts, each drawn from (seed, epoch, image id)."""
    threads: int = Field(default=1, ge=1)
    """Threads of torch; another number rounds sums otherwise, one gives equal weights on most machines."""
    epochs: int = Field(ge=1)
    """Passes over the training split."""
    images_per_epoch: int | None = Field(default=None, ge=1)
    """Crops of one pass, newly drawn each time; without it, `patches` crops of every image."""
    batch_size: int = Field(default=16, ge=2)
    """Crops of one step; the correlation in the loss is over a batch."""
    crop: int = Field(default=160, ge=1)
    """Side in pixels of the random crop; no image, resized, may be smaller."""
    flip: bool = True
    """Whether half of the crops are mirrored left to right."""
    lr_trunk: float = Field(default=5e-4, gt=0)
    """Peak learning rate of the trunk's group."""
    lr_head: float = Field(default=2e-3, gt=0)
    """Peak learning rate of all parameters that no other group holds."""
    warmup: float = Field(default=0.3, ge=0, le=1)
    """Of one_cycle: share of the steps in which the learning rate rises; it falls in the others."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """Of the optimiser: decoupled in adamw, an L2 term of the gradient in adam."""
    clip_norm: float = Field(default=5.0, ge=0)
    """Largest norm of the gradient over all parameters; 0 clips nothing."""
    smooth_l1_beta: float = Field(default=0.1, gt=0)
    """Of smooth_l1_plcc: error, as a share of the score range, where it turns from quadratic to linear."""
    plcc_weight: float = Field(default=0.2, ge=0)
    """Of smooth_l1_plcc: weight of 1 - PLCC beside the smooth L1 loss."""
    batch_norm: Literal["frozen", "calibrated", "live"] = "frozen"
    """Statistics of batch norm: as they come, measured once on the training split, or updated every step."""
    head_start: Literal["random", "ridge"] = "random"
    """How a pooled head begins: random, or solved in closed form on the trunk's first features."""
    ridge_alpha: float = Field(default=1000.0, gt=0)
    """Penalty of the ridge solution, on standardised features."""

    # What follows came later: a value that is the default stays out of a run's identity.

    patches: int = Field(default=1, ge=1)
    """Random crops of each image in one pass, shuffled among those of all images."""
    resize: str = "none"
    """Before cropping: none, keep_aspect (shorter side 384), shorter:N, or HEIGHTxWIDTH (bilinear)."""
    optimiser: Literal["adamw", "adam"] = "adamw"
    """Both with betas .9 and .999; adam couples the weight decay."""
    trunk_prefixes: tuple[str, ...] = ("trunk.",)
    """Parameters whose names begin so form the trunk's group (HyperIQA's code adds "head.lda.")."""
    lr_groups: dict[str, float] = Field(default_factory=dict)
    """Further groups, prefix of the parameters' names = peak learning rate; the longest prefix decides."""
    schedule: Schedule = "one_cycle"
    """Course of the learning rates."""
    schedule_per: Literal["step", "epoch"] = "step"
    """Of cosine: whether the rate moves every step or, as in the authors' code, every epoch."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Of all but one_cycle: epochs of a linear rise before the schedule begins."""
    eta_min: float = Field(default=0.0, ge=0)
    """Of cosine: rate it ends at, one number for all groups; a group that peaks below it rises."""
    milestones: tuple[int, ...] = ()
    """Of multistep: numbers of finished epochs after which rates are multiplied by gamma."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """Of multistep: the factor."""
    decay_trunk: bool = True
    """Of multistep: whether the trunk's group decays too."""
    loss: Loss = "smooth_l1_plcc"
    """What is minimised, next to a model's own auxiliary losses."""
    loss_reading: Literal["fixed", "author"] = "fixed"
    """Of srcc, rank and pairwise: corrected, or as SMART-IQA's code has them (see the README)."""
    loss_scale: Literal["unit", "score"] = "unit"
    """Scale the loss sees scores and labels on: [0, 1], or the model's own score range."""
    pairwise_sigma: float = Field(default=0.1, gt=0)
    """Of pairwise, fixed reading: spread of one score, as a share of the score range."""
    rank_temperature: float = Field(default=0.1, gt=0)
    """Of soft ranks, in standard deviations of the batch's scores."""
    hinge_weight: float = Field(default=0.0, ge=0)
    """Weight of a margin ranking loss added to the loss; 0 leaves it out."""
    hinge_margin: float = Field(default=0.1, ge=0)
    """Its margin, on the scale of the loss."""
    select_on: Literal["val", "test"] = "val"
    """Split that chooses the epoch; test only in the authors' own presets, with a warning."""
    keep: Literal["best", "last"] = "best"
    """Epoch that becomes the checkpoint; best is by clean images, which robust training orders less well."""
    patience: int = Field(default=0, ge=0)
    """Epochs without a new best after which training stops; 0 never stops."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay a step of the moving average of the weights that is validated and kept; 0 is off."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of forward passes: bf16 by autocast anywhere, fp16 with loss scaling on CUDA only."""
    deterministic: bool = True
    """Deterministic kernels only; off lets CUDA choose faster ones."""
    robust: Robust = NotRobust()
    """Robust training: none, gradient_norm, fgsm or pgd, as in robust = { kind = "pgd", steps = 3 }."""
    trunk: Literal["trained", "frozen"] = "trained"
    """Whether the trunk learns; frozen, it stays in eval mode and only the head is trained."""
    cache_maps: bool = False
    """Compute a frozen trunk's maps once: each crop and flip is drawn once, for all epochs."""
    quirks: Literal["none", "hyperiqa_author", "smart_author"] = "none"
    """Bugs of an author's code that are reproduced; set by that author's preset only (see the README)."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        try:
            return require_name(name, "a checkpoint")
        except ResultsError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="before")
    @classmethod
    def _nest_robust(cls, values: Any) -> Any:
        return nested(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse settings that contradict each other."""
        problems = [text for holds, text in self._contradictions() if holds]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _contradictions(self) -> list[tuple[bool, str]]:
        return [
            (self.resize != "none" and RULES.fullmatch(self.resize) is None,
             f"resize: none, keep_aspect, shorter:N or HEIGHTxWIDTH, not {self.resize!r}"),
            (self.select_on == "test" and self.quirks == "none",
             "select_on: 'test' is for the authors' own presets; an epoch is chosen on val"),
            (self.schedule != "multistep" and bool(self.milestones),
             f"milestones: go with schedule 'multistep', not {self.schedule!r}"),
            (self.schedule == "multistep" and not self.milestones, "milestones: multistep needs some"),
            (list(self.milestones) != sorted({m for m in self.milestones if m > 0}),
             "milestones: positive, ascending, each once"),
            (self.schedule != "cosine" and self.eta_min > 0, "eta_min: goes with schedule 'cosine'"),
            (self.schedule == "one_cycle" and self.warmup_epochs > 0,
             "warmup_epochs: one_cycle has its own, warmup"),
            (self.warmup_epochs >= self.epochs, "warmup_epochs: leaves no epoch for the schedule"),
            (any(rate <= 0 for rate in self.lr_groups.values()), "lr_groups: rates are positive"),
            (self.quirks != "none" and self.robust.kind != "none", "robust: not with an author's quirks"),
            (self.trunk == "frozen" and self.batch_norm != "frozen",
             f"batch_norm: a frozen trunk keeps its statistics, not {self.batch_norm!r}"),
            (self.cache_maps and self.trunk != "frozen", "cache_maps: goes with trunk 'frozen'"),
            (self.cache_maps and self.robust.kind != "none",
             f"cache_maps: robust {self.robust.kind!r} needs the pixels of every step"),
        ]  # fmt: skip

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON on one level, as a checkpoint's card holds them; see `RECORDED`."""
        values = self.model_dump(mode="json")
        robust = values.pop("robust")
        values["robust"] = robust["kind"]
        for old, (owner, field) in RECORDED.items():
            values[old] = robust.get(field, owner.model_fields[field].default)
        return values

    def identity(self) -> dict[str, Any]:
        """Return what decides the weights as JSON; settings that came later are left out at their default."""
        plain = TrainConfig(name=self.name, model=self.model, epochs=self.epochs).record()
        late = list(plain)
        late = late[late.index("patches") :]
        return {
            name: value for name, value in self.record().items() if name not in late or value != plain[name]
        }

    def warnings(self) -> list[str]:
        """Return what a reader of the result must know; shown at the start and kept on the card."""
        found = []
        if self.select_on == "test":
            found.append(
                "the epoch is chosen on the test split, as in the author's code: its figures flatter"
            )
        if self.quirks == "hyperiqa_author":
            found.append(
                "as in HyperIQA's code: the optimiser is rebuilt every epoch, its head group is empty from "
                "the second one on (the head trains in epoch 1 only), and the trunk's rate never falls"
            )
            found.append(
                "HyperIQA's code reports the median of ten runs on random draws of 80:20; this is one run"
            )
        peaks = {"trunk": self.lr_trunk, "head": self.lr_head, **self.lr_groups}
        rising = [name for name, rate in peaks.items() if rate < self.eta_min]
        if rising:
            found.append(
                f"eta_min {self.eta_min:g} lies above the peak of {', '.join(rising)}: that rate rises"
            )
        return found


def list_presets(pattern: str = "*") -> list[str]:
    """Return the names of the settings that ship with the harness and match a shell pattern, sorted."""
    names = (item.name for item in _folder().iterdir())
    known = [name.removesuffix(".toml") for name in names if name.endswith(".toml")]
    return sorted(fnmatch.filter(known, pattern))


def load_preset(name: str) -> TrainConfig:
    """Return the settings that ship under a name of `list_presets`.

    Raises:
        TrainingError: no such preset; the message holds the nearest name.
    """
    known = list_presets()
    if name not in known:
        from iqa_models.registry import did_you_mean  # loads torch, which no settings need

        raise TrainingError(
            f"no training preset {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}"
        )
    return _parse(_folder() / f"{name}.toml", f"{name}.toml")


def load_train_config(path: Path) -> TrainConfig:
    """Read settings from a TOML file.

    Raises:
        TrainingError: the file cannot be read, is no TOML, or has an unknown key or a bad value;
            the message names the file and every such key.
    """
    return _parse(path, str(path))


def find_config(preset: str) -> TrainConfig:
    """Return the settings of a preset's name or of a TOML file's path, as a user writes either."""
    return load_train_config(Path(preset)) if preset.endswith(".toml") else load_preset(preset)


def changed(config: TrainConfig, changes: Mapping[str, JsonValue], where: str) -> TrainConfig:
    """Return settings with some of them changed.

    Args:
        config: stays as it is.
        changes: key to value; ``options.KEY``, ``lr_groups.PREFIX`` and ``robust.KEY`` change one entry of a
            table. Another ``robust.kind`` begins at the defaults of its own.
        where: what the changes come from, for messages.

    Raises:
        TrainingError: an unknown key, a bad value, or an author's quirk without the author's preset.
    """
    values = config.model_dump(mode="json")
    # The kind of a table comes before what stands in it.
    for key, value in sorted(changes.items(), key=lambda change: change[0] != "robust.kind"):
        if key == "quirks" and value != config.quirks:
            raise TrainingError(f"{where}: quirks: an author's bugs come with that author's preset only")
        table, dot, entry = key.partition(".")
        if key == "robust.kind" and value != config.robust.kind:
            values["robust"] = {"kind": value}
        elif dot and table in ("options", "lr_groups", "robust") and entry:
            former = values[table] if isinstance(values[table], Mapping) else {"kind": values[table]}
            values[table] = {**former, entry: value}
        else:
            values[key] = value
    return _validate(values, where)


def read_changes(texts: Sequence[str]) -> dict[str, JsonValue]:
    """Read ``key=value`` texts: values are TOML (``5e-4``, ``[1, 2]``, ``true``) and otherwise plain text.

    Raises:
        TrainingError: a text is not ``key=value``, or a key is given twice.
    """
    changes: dict[str, JsonValue] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        key = key.strip()
        if not (key and sign):
            raise TrainingError(f"--set {text!r}: write key=value")
        if key in changes:
            raise TrainingError(f"--set {text!r}: {key} is given twice")
        try:
            changes[key] = read_toml(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[key] = value.strip()
        except ValueError as error:
            raise TrainingError(f"--set {key}: {error}") from error
    return changes


def documented(config: TrainConfig) -> str:
    """Return settings as TOML with the meaning of every key above it; a run reads it as it stands."""
    lines = [f"# {text}" for text in config.warnings()]
    for name, field in TrainConfig.model_fields.items():
        value = getattr(config, name)
        lines.append("")
        if name == "robust":
            lines += [f"# {text}" for text in explained()]
        lines.append(f"# {field.description}")
        lines.append(f"# {name} = (not set)" if value is None else f"{name} = {_toml(value)}")
    return "\n".join(lines).lstrip() + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, BaseModel):
        return _toml(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return json.dumps(value)


def _folder() -> Traversable:
    return resources.files("iqa_harness.training") / "presets"


def _parse(file: Traversable, shown: str) -> TrainConfig:
    try:
        values = read_toml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: no UTF-8 or no TOML
        raise TrainingError(f"{shown}: {error}") from error
    return _validate(values, shown)


def _validate(values: Mapping[str, Any], shown: str) -> TrainConfig:
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        lines = [
            ": ".join(
                filter(None, (".".join(map(str, e["loc"][:4])), _message(e["type"], e["loc"], e["msg"])))
            )
            for e in error.errors()
        ]
        raise TrainingError(f"{shown}: {'; '.join(lines)}") from error
    except RecursionError:
        raise TrainingError(f"{shown}: values are nested too deeply") from None


def _message(kind: str, place: Sequence[int | str], message: str) -> str:
    if kind == "recursion_depth_exceeded":
        return "nested too deeply"
    if kind != "extra_forbidden":
        return message.removeprefix("Value error, ")
    key = str(place[-1])
    if key in RECORDED:
        owner = RECORDED[key][0]
        kinds = " or ".join(repr(name) for name, settings in ROBUST.items() if issubclass(settings, owner))
        return f"goes with robust {kinds}"
    from iqa_models.registry import did_you_mean

    known = TrainConfig if len(place) == 1 else ROBUST[str(place[1])]
    return "unknown key" + did_you_mean(key, known.model_fields)
