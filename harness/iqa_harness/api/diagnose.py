"""What an SRM neck does to images, or how SMART-IQA weighs its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_harness.api.inputs import Data, Model, entrants_of, set_up
from iqa_harness.data.catalogue import open_data
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evaluation.evaluate import in_use
from iqa_harness.machine.devices import own_threads
from iqa_harness.machine.places import require_file
from iqa_harness.reporting import insights
from iqa_models import SRMQuality
from iqa_models.hyper.model import HyperQuality
from iqa_models.srm import DiagnosticRow
from iqa_reports import make_frame
from iqa_reports.inputs.frames import Attention
from iqa_results import write_parquet

if TYPE_CHECKING:
    import pandas as pd

SHOWN = ("median", "p90", "mean", "share")
"""Statistics for people; the rows have all."""


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What a model's inner parts did on some images."""

    model: str
    """The model's name."""
    rows: Sequence[DiagnosticRow] | Sequence[Attention]
    """A neck's statistics, or the weights of SMART-IQA's stages on each image; may be none."""
    files: tuple[Path, ...] = ()
    """What was written."""

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        import pandas as pd

        return pd.DataFrame([row._asdict() for row in self.rows])

    def shown(self) -> tuple[tuple[str, ...], list[tuple[str, ...]], int]:
        """Return heads and texts of a short table for people, and how many of its columns are names."""
        attention = [row for row in self.rows if isinstance(row, Attention)]
        statistics = [row for row in self.rows if isinstance(row, DiagnosticRow)]
        return _by_thirds(attention) if attention else _by_quantity(statistics)

    def __repr__(self) -> str:
        return f"{self.model}\n{self.table.to_string(index=False)}"

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False))


@own_threads
def diagnose(
    model: Model,
    *,
    data: Data = "demo",
    split: str | None = None,
    limit: int | None = None,
    batch: int = 8,
    out: Path | str | None = None,
    maps: int = 0,
    cache: Path | str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: bool = True,
) -> Diagnosis:
    """Measure what an SRM neck does to images, or how SMART-IQA weighs its stages.

    Every keyword is an option of `iqa-harness diagnose`, hence their number.

    Args:
        model: by name, by folder, or an object.
        data: an image set, by name or open.
        split: one of its splits, by default all.
        limit: first images only.
        batch: images at once.
        out: Parquet file for all rows.
        maps: of a hyper model, feature maps of so many images, beside `out` as ``*-maps.parquet``.
        cache: root of the cache of data.
        device: torch device.
        threads: threads within one operation, by default torch's own.
        progress: report on stderr.

    Raises:
        RunError: a model with nothing to diagnose, no images, or a file that cannot be written.
        DataError: images that are not there or cannot be used.
        ModelError: a model that cannot be made.
    """
    file = None if out is None else Path(out)
    require_file(file, "--out")
    set_up(device, threads)
    (entrant,) = entrants_of(model, tell=progress)
    if not isinstance(entrant.model, SRMQuality | HyperQuality):
        raise RunError(
            f"{entrant.label} has neither an SRM neck nor SMART-IQA's attention: of the models that "
            "`iqa-harness models list` shows, srm_... and smart_iqa_... have"
        )
    if maps and not isinstance(entrant.model, HyperQuality):
        raise RunError(f"{entrant.label}: --maps shows the stages of hyperiqa and smart_iqa models")
    if maps and file is None:
        raise RunError("--maps writes feature maps beside the file of --out; name one")
    images = open_data(data, cache_dir=cache, progress=progress)
    if split is not None:
        images = images.split(split)
    if limit is not None:
        images = images.subset(range(min(limit, len(images))))
    if not len(images):
        raise RunError(f"{images.card.name}: no images in split {split!r}")
    with in_use(entrant.model, device):
        if isinstance(entrant.model, HyperQuality):
            return _attention(entrant.model, entrant.label, images, file, maps, device)
        rows = entrant.model.diagnostics(insights.image_batches(images, batch, device))
    if file is not None:
        name = str(data) if isinstance(data, str | Path) else images.card.name
        insights.write_diagnostics(file, rows, context=_context(entrant, name, images).items())
    return Diagnosis(entrant.label, rows, () if file is None else (file,))


def _context(entrant: Entrant, data: str, images: ImageSet) -> dict[str, str]:
    return {"model": entrant.label, "weights": entrant.sha256, "data": data, "images": str(len(images))}


def _attention(
    subject: HyperQuality, label: str, images: ImageSet, out: Path | None, maps: int, device: str
) -> Diagnosis:
    """Return the weights of the stages; write them and feature maps."""
    rows: list[Attention] = []
    files = []
    if subject.head.fusion.attention is not None:
        rows = insights.attention_rows(subject, label, images, device)
        if out is not None:
            files.append(write_parquet(out, make_frame("attention", rows)))
    elif not maps:
        raise RunError(f"{label}: has no attention over stages; --maps N still writes its feature maps")
    if maps and out is not None:
        beside = out.with_name(f"{out.stem}-maps.parquet")
        chosen = insights.by_quality(images, maps)
        frame = insights.feature_frame(subject, label, images, chosen, device)
        files.append(write_parquet(beside, frame))
    return Diagnosis(label, rows, tuple(files))


def _by_thirds(rows: list[Attention]) -> tuple[tuple[str, ...], list[tuple[str, ...]], int]:
    """Return the mean weight of each stage by thirds of the labels."""
    ordered = sorted(rows, key=lambda row: row.mos)
    first, second = len(ordered) // 3, 2 * len(ordered) // 3
    texts = []
    for name, part in zip(
        ("low", "middle", "high"), (ordered[:first], ordered[first:second], ordered[second:]), strict=True
    ):
        means = [f"{sum(a.stages[s] for a in part) / len(part):.3f}" if part else "-" for s in range(4)]
        texts.append((name, str(len(part)), *means))
    return ("third by label", "images", "stage 1", "stage 2", "stage 3", "stage 4"), texts, 1


def _by_quantity(rows: Sequence[DiagnosticRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]], int]:
    """Return the statistics `SHOWN` of each quantity and place."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        found.setdefault((row.quantity, row.place), {})[row.statistic] = row.value
    texts = [
        (*place, *(f"{values[name]:.3g}" if name in values else "" for name in SHOWN))
        for place, values in found.items()
    ]
    return ("quantity", "place", *SHOWN), texts, 2
