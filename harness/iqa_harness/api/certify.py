"""What no attack can do: floors under a model's SROCC and PLCC over all admissible images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from iqa_attacks import Norm, ThreatModel, parse_epsilon
from iqa_attacks.certificates.intervals import Drawing, ScoreIntervals
from iqa_harness.api.inputs import Data, Model, entrants_of, entrants_of_run, images_of_run, set_up
from iqa_harness.api.opening import STORE, opened
from iqa_harness.api.reading import aggregated
from iqa_harness.data.catalogue import open_data
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.foreign import measure_cards
from iqa_harness.errors import RunError
from iqa_harness.evaluation.certificates import Certified, Judged, certify_set
from iqa_harness.evaluation.evaluate import DataUnderTest, Scoring, in_use, name_sets, score_images
from iqa_harness.machine.devices import own_threads
from iqa_harness.machine.places import require_folder
from iqa_harness.machine.terminal import progress_bar
from iqa_harness.measures.correlation import Logistic, Vector, fit_logistic
from iqa_harness.reporting.runs import CERTIFICATES, computed_run
from iqa_harness.tables.robustness import RobustnessTable
from iqa_reports import TableView, html_table, table_text
from iqa_reports.bracket import bracket_table, certificates_table
from iqa_results import FIT, Certificate

if TYPE_CHECKING:
    from iqa_results import ResultStore


@dataclass(frozen=True, repr=False)
class Certificates:
    """Floors of some models, and the intervals of their images."""

    rows: tuple[Certificate, ...]
    """One a model, radius and metric."""
    intervals: pd.DataFrame
    """One row a model, radius and image: model, norm, epsilon, image_id, low, high."""
    views: tuple[TableView, ...]
    """As people see them; of a run beside what its attacks found."""

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        return pd.DataFrame(self.rows, columns=list(Certificate._fields))

    @property
    def contradicted(self) -> tuple[Certificate, ...]:
        """Those that an attack of the run contradicts; an estimate of a smoothed score contradicts none."""
        return tuple(row for row in self.rows if row.outside and row.confidence == 1)

    def __repr__(self) -> str:
        return "\n".join(table_text(view) for view in self.views)

    def _repr_html_(self) -> str:
        return "".join(html_table(view) for view in self.views)


@own_threads
def certify(
    models: Model | Mapping[str, Any] | Iterable[Model],
    data: Data = "demo",
    *,
    norm: Norm = "inf",
    epsilon: str | float = "1/255",
    split: Literal["train", "val", "test", "all"] = "test",
    limit: int | None = None,
    draws: int = 1000,
    confidence: float = 0.999,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    cache: str | Path | None = None,
    backbone_weights: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    progress: bool = True,
) -> Certificates:  # one argument an option of the command
    """Return what no attack within a ball can push a model's SROCC and PLCC below.

    A linear model has a closed form; a wrapped ``nn.Sequential`` of simple layers has bounds through its
    layers; any model behind ``smooth_median:SIGMA,DRAWS`` has randomised smoothing in norm 2. Others have
    rows that say why there is no certificate.

    Args:
        models: by name, by folder, or objects.
        data: a set by name, or open.
        norm: inf, 2 or rmse.
        epsilon: radius on pixels in [0, 1]; a text such as "1/255" will do.
        split: images the floors are of.
        limit: only the first images of it.
        draws: noisy copies of each image for a smoothed model.
        confidence: with which a smoothed model's floors hold, all images together.
        seed: of those draws.
        device: torch device.
        threads: threads within one operation, torch's own if left out.
        cache: folder of the embedded data.
        backbone_weights: file of pretrained trunk weights, for models created by name.
        plugins: Python files of yours that register models; they are run.
        progress: report on stderr.

    Raises:
        RunError: too few images, or a device that is not there.
        AttackError: a radius or a number of draws that cannot be.
        DataError: images that cannot be used.
        ModelError: a model that cannot be made.
    """
    threat = ThreatModel(norm, parse_epsilon(epsilon))
    drawing = Drawing(draws=draws, confidence=confidence, seed=seed)
    set_up(device, threads, plugins)
    entrants = entrants_of(models, backbone_weights=backbone_weights, plugins=plugins, tell=progress)
    images = open_data(data, cache_dir=cache, progress=progress)
    (named,) = name_sets([(images.card.name, images)], split)
    chosen = (
        named.evaluated if limit is None else named.evaluated.subset(range(min(limit, len(named.evaluated))))
    )
    entrants = measure_cards(entrants, chosen, device)
    made = []
    with progress_bar("Certifying", len(entrants) * len(chosen), show=progress) as advance:
        for entrant in entrants:
            judged = _judged(entrant, chosen, named, Scoring(device, 1, seed))
            found = certify_set(entrant, chosen, judged, threat, drawing, device=device, on_image=advance)
            made.append((found, chosen))
    rows = [row for found, _ in made for row in found.rows]
    return Certificates(tuple(rows), _frame(made), (certificates_table(rows),))


@own_threads
def certify_run(
    run: str,
    *,
    store: str | Path | ResultStore = STORE,
    models: Model | Mapping[str, Any] | Iterable[Model] = (),
    data: Any = None,
    draws: int = 1000,
    confidence: float = 0.999,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    cache: str | Path | None = None,
    backbone_weights: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    progress: bool = True,
) -> Certificates:  # one argument an option of the command
    """Certify the models of a run at its own norm and radii, and store the floors with it.

    Reports then have the table **bracket**: certified, what attacks found, clean. PLCC is of scores mapped by
    the run's own logistic. Scores that attacks of the run found are held against the intervals.

    Args:
        run: its name in the store.
        store: folder or URL of results.
        models: where models of the run are now, by the run's names; the others are made as the manifest says.
        data: where the images are now; as the suite says if left out.
        draws: noisy copies of each image for a smoothed model.
        confidence: with which a smoothed model's floors hold, all images together, at each radius.
        seed: of those draws.
        device: torch device.
        threads: threads within one operation, torch's own if left out.
        cache: folder of the embedded data.
        backbone_weights: file for the trunks of models created by name, if it has moved.
        plugins: Python files of yours that register models.
        progress: report on stderr.

    Raises:
        RunError: a model that cannot be made again or is another one now; images that are not the run's.
        AttackError: a number of draws that cannot be.
    """
    drawing = Drawing(draws=draws, confidence=confidence, seed=seed)
    set_up(device, threads, plugins)
    results = opened(store)
    require_folder(str(results.root), "--store")
    manifest, tables = aggregated(results, run)
    entrants = entrants_of_run(manifest, models, plugged=bool(plugins), backbone_weights=backbone_weights)
    images = images_of_run(manifest, data, cache).split(manifest.data.split)
    made = []
    reached = tables.intervals.to_pandas()
    with progress_bar("Certifying", len(reached), show=progress) as advance:
        for entrant in entrants:
            mine = reached[reached["model"] == entrant.label]
            for (norm, epsilon), rows in mine.groupby(["norm", "epsilon"]):
                found = _at(
                    entrant, rows, images, tables, ThreatModel(norm, epsilon), drawing, device, advance
                )
                made.append(found)
    rows = [row for found, _ in made for row in found.rows]
    results.write_table(run, rows, CERTIFICATES)
    view = computed_run(results, manifest, tables)
    views = [bracket_table(view, metric) for metric in ("srocc", "plcc")]
    return Certificates(tuple(rows), _frame(made), tuple(view for view in views if view is not None))


# One place of a run: who, on what, held against what, in what ball, and what is told.
def _at(
    entrant: Entrant,
    rows: pd.DataFrame,
    images: ImageSet,
    tables: RobustnessTable,
    threat: ThreatModel,
    drawing: Drawing,
    device: str,
    advance: Callable[[], None],
) -> tuple[Certified, ImageSet]:
    places = {record.image_id: place for place, record in enumerate(images.records)}
    missing = [name for name in rows["image_id"] if name not in places]
    if missing:
        raise RunError(f"image {missing[0]!r} of the run is not among the images here")
    chosen = images.subset([places[name] for name in rows["image_id"]])
    fit = next(fit for fit in FIT.rows(tables.fits) if fit.model == entrant.label)
    logistic = None
    if fit.status == "ok":
        b = [float(value or 0) for value in (fit.b1, fit.b2, fit.b3, fit.b4, fit.b5)]
        logistic = Logistic(0.0, 1.0, (b[0], b[1], b[2], b[3], b[4]), float(fit.residual or 0))
    mos, clean, low, high = (rows[name].to_numpy(np.float64) for name in ("mos", "clean", "s_min", "s_max"))
    judged = Judged(mos, clean, logistic, (low, high))
    return certify_set(entrant, chosen, judged, threat, drawing, device=device, on_image=advance), chosen


def _judged(entrant: Entrant, images: ImageSet, named: DataUnderTest, how: Scoring) -> Judged:
    """Score a set and fit the logistic, on the set's validation images where there are enough."""

    def scored(some: ImageSet) -> Vector:
        ids = [record.image_id for record in some.records]
        with in_use(entrant.model, how.device):
            return np.array(
                [score_images(entrant.model, [some.read(i)], [name], how)[0] for i, name in enumerate(ids)]
            )

    clean, validation = scored(images), named.validation
    on = (clean, images.labels) if validation is None else (scored(validation), validation.labels)
    return Judged(images.labels, clean, fit_logistic(*on).logistic)


def _frame(made: Sequence[tuple[Certified, ImageSet]]) -> pd.DataFrame:
    """Return the intervals of all images."""
    columns = ["model", "norm", "epsilon", "image_id", "low", "high"]
    rows = []
    for found, images in made:
        intervals: ScoreIntervals | None = found.intervals
        if intervals is not None:
            first = found.rows[0]
            for record, low, high in zip(images.records, intervals.low, intervals.high, strict=True):
                rows.append((first.model, first.norm, first.epsilon, record.image_id, low, high))
    return pd.DataFrame(rows, columns=columns)
