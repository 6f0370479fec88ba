"""The record of a run: everything needed to understand its rows a year later."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

MANIFEST_FORMAT: Literal[1] = 1


Amount = Annotated[int, Field(ge=0, le=2**62)]
"""A count: what no run reaches is damage, and would overflow where it is added or divided."""
Seconds = Annotated[float, Field(ge=0, le=1e12)]
"""A time: at most some 30,000 years."""


class Record(BaseModel):
    """What is written as JSON: no unknown field, and nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Read(BaseModel):
    """What readers take from a record that other packages write; the rest of it may be anything."""

    model_config = ConfigDict(extra="ignore", strict=True)


_Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e300, le=1e300)]
_Ends = tuple[_Finite, _Finite]


def _rising(ends: _Ends | None) -> _Ends | None:
    if ends is not None and not ends[0] < ends[1]:
        raise ValueError("the first end must be below the second")
    return ends


_Range = Annotated[_Ends | None, Field(strict=False), AfterValidator(_rising)]
_Notes = Annotated[tuple[str, ...], Field(strict=False)]


class _ModelCard(_Read):
    score_range: _Range = None
    options: dict[str, Any] = {}
    is_stochastic: bool = False
    has_gradient: bool = True
    notes: _Notes = ()


class _DataCard(_Read):
    mos_range: _Range = None
    notes: _Notes = ()


class _Check(_Read):
    value: _Finite | None
    threshold: _Finite
    passed: bool
    detail: str


def _read_as(model: type[_Read]) -> AfterValidator:
    """Refuse a record in which a value that readers take is of another kind; it stays as it was written."""

    def checked(fields: dict[str, Any]) -> dict[str, Any]:
        try:
            model.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        return fields

    return AfterValidator(checked)


_WORDS = re.compile(
    r"(?:the first (\d+) images|(\d+) chosen images \((.*)\)) of the (\d+) that the suite names", re.DOTALL
)


def selection_words(chosen: Selection, images: int, of: int | None) -> str:
    """Say which images were chosen: so many of those that the suite names."""
    named = ", ".join(chosen.images)
    which = f"{images} chosen images ({named})" if named else f"the first {images} images"
    return f"{which} of the {of} that the suite names"


class PluginRecord(Record):
    """A Python file of the user's own that registers models."""

    path: str
    """Where it lay."""
    sha256: str
    """Hash of its text."""
    helpers: dict[str, str] = {}
    """Hashes of the files beside it that it imports, by their paths from its folder (or its package's)."""


class ModelRecord(Record):
    """One model under test, as the run saw it."""

    name: str
    """Name the run and its tables use."""
    sha256: str
    """Hash of card and weights."""
    card: Annotated[dict[str, JsonValue], _read_as(_ModelCard)]
    """The model's card (`ModelSpec`) in full."""
    checkpoint: str | None
    """Where the weights were read from, as the user gave it; None for a model created by name."""
    checks: dict[str, Annotated[dict[str, JsonValue], _read_as(_Check)]]
    """What `check_model` measured before any attack."""

    argument: str | None = None
    """What to write after `--model` to make it again; None for an object handed over in Python."""
    bare: str | None = None
    """Name of the run's model that this one is with defences before it; None for any other."""
    plugins: tuple[PluginRecord, ...] = ()
    """Files given with `--plugin`, to be run before the model can be made again."""
    backbone_weights: str | None = None
    """File given with `--backbone-weights`, None without one."""
    forwards: Amount = 0
    """Evaluations of this model (images) in all its done cells."""
    backwards: Amount = 0
    """Of them with a gradient."""
    seconds: Seconds = 0.0
    """Wall time of all its done cells."""
    flops: tuple[Amount, Amount] | None = None
    """Floating-point operations of one evaluation and of one input gradient at the size of the run's first
    image; None where no card's peak is known to compare them with."""


@dataclass(frozen=True)
class Selection:
    """Fewer images than the suite names, as asked for on the command line."""

    limit: int | None = None
    """Only the first so many."""
    images: tuple[str, ...] = ()
    """Only these ids; all if empty. They are attacked in the set's order."""


class DataRecord(Record):
    """The images and labels, as the run saw them."""

    name: str
    """Name that tables show."""
    sha256: str
    """Fingerprint of the whole image set."""
    split: str
    """Split that was attacked."""
    images: int
    """Number of attacked images."""
    label: Literal["MOS", "pseudo-MOS"]
    """Human opinion, or a computed stand-in."""
    card: Annotated[dict[str, JsonValue], _read_as(_DataCard)]
    """The data set's card in full."""
    chosen: Selection | None = None
    """How images were chosen on the command line; None for all that the suite names."""
    chosen_from: int | None = None
    """Number of images they were chosen from."""

    @property
    def selection(self) -> str | None:
        """Which images were chosen, in words; None for all that the suite names."""
        return None if self.chosen is None else selection_words(self.chosen, self.images, self.chosen_from)

    @model_validator(mode="before")
    @classmethod
    def _of_first_edition(cls, fields: Any) -> Any:
        """Read the choice of images from its words, which is all that the first edition wrote down."""
        if not isinstance(fields, dict) or "selection" not in fields:
            return fields
        rest = {name: value for name, value in fields.items() if name != "selection"}
        if fields["selection"] is None:
            return rest
        found = _WORDS.fullmatch(str(fields["selection"]))
        if found is None:
            raise ValueError("the selection of images is worded as no edition words it")
        count, ids = int(found[1] or found[2]), tuple(found[3].split(", ")) if found[3] else ()
        limit = None if ids and len(ids) <= count else count
        return rest | {"chosen": Selection(limit, ids), "chosen_from": int(found[4])}


class CellRecord(Record):
    """One cell of the plan and what became of it."""

    key: str
    """Hash of everything that decides the content; name of the Parquet part."""
    model: str
    """Name the run gave the model."""
    attack: str
    """Attack of the suite, 'clean' for scores without attack."""
    epsilon: float
    """Radius on pixels in [0, 1], 0 for clean."""
    split: str
    """Split the images are of."""
    first: Amount
    """Position of the first image, from 0."""
    count: Amount
    """Number of images."""
    status: Literal["done", "failed", "missing"]
    """Whether the part is in the store."""
    error: str | None = None
    """Why the cell failed, with its traceback; None otherwise."""
    bytes: Amount | None = None
    """Size of the part when it was last known to be whole, None if it never was."""
    forwards: Amount = 0
    """Model evaluations (images) that went into the part."""
    backwards: Amount = 0
    """Of them with a gradient."""
    seconds: Seconds = 0.0
    """Wall time the part took."""
    device: str | None = None
    """Device it was computed on."""
    harness: str | None = None
    """Version and commit of the code that computed it."""


class WorkerRecord(Record):
    """One process that computed cells; it names no host and no user."""

    id: str
    """Name within the run."""
    executor: str
    """How it was started: inline, processes, ray or slurm."""
    device: str
    """Torch device."""
    device_name: str
    """What the device calls itself."""
    threads: int
    """Threads torch used within one operation."""
    peak_memory: int | None
    """Most bytes in use at once: of a GPU what torch had allocated on it, of a CPU the whole process."""
    cells: int
    """Cells it computed."""
    seconds: Seconds
    """Time it spent in them."""


class Provenance(Record):
    """Where and with what the run was made."""

    packages: dict[str, str]
    """Version of every package that can change a number."""
    python: str
    """Python version."""
    platform: str
    """Operating system and architecture."""
    device: str
    """Device the models ran on."""
    threads: int
    """Threads torch used within one operation."""
    commit: str | None
    """Commit of the harness's own checkout, None for an installed package."""
    dirty: bool | None
    """Whether that checkout had uncommitted changes."""
    cuda: str | None = None
    """Version of CUDA that torch was built for, None for a build without it."""
    driver: str | None = None
    """Version of the NVIDIA driver, None if there is none."""


class RunManifest(Record):
    """A run as a typed record, written whole at the start, at the end and at an interrupt."""

    format: Literal[1] = MANIFEST_FORMAT
    """Format of this file."""
    run: str
    """Name of the run, its folder in the store."""
    suite: str
    """Name of the suite."""
    suite_sha256: str
    """Hash of the validated suite: equal hashes are comparable runs."""
    suite_text: str
    """The suite as TOML, whole."""
    main_epsilon: float
    """Radius the leaderboard is ranked at."""
    suite_min: tuple[str, ...]
    """Members of the suite's minimum, as attack/objective."""
    step_sweep: str | None
    """Attack whose prefixes are the step sweep, None if the suite has none."""
    seed: int = Field(ge=0)
    """Seed of the suite."""
    models: tuple[ModelRecord, ...]
    """Models under test."""
    data: DataRecord
    """Images and labels."""
    cells: tuple[CellRecord, ...]
    """The plan, cell by cell."""
    status: Literal["running", "interrupted", "partial", "complete"]
    """`complete` only if every cell is done."""
    started: str
    """UTC time of the first start, ISO 8601."""
    ended: str | None
    """UTC time of the last stop, None while running."""
    forwards: Amount
    """Model evaluations (images) of all done cells."""
    backwards: Amount
    """Of them with a gradient."""
    seconds: Seconds
    """Wall time spent in the cells' attacks, all starts together."""
    provenance: Provenance
    """Where and with what the run was made."""
    executor: str = "inline"
    """How the cells of the last start were computed: inline, processes, ray or slurm."""
    workers: tuple[WorkerRecord, ...] = ()
    """The processes that computed cells, of all starts."""
    device_seconds: Seconds = 0.0
    """Time all workers together spent in cells, tries that failed included."""
    tuning: dict[str, JsonValue] = Field(default={})
    """What was chosen for speed and memory, such as chunk sizes: no result depends on it."""
    notes: tuple[str, ...] = Field(default=())
    """What a reader must know (pseudo-MOS, missing transfer, ...)."""
