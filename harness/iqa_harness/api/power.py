"""Do a suite's attacks find what is known to be there?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_harness.api.attack import as_suite, suite_on_data
from iqa_harness.api.inputs import entrants_of, entrants_of_run, images_of_run, set_up
from iqa_harness.api.opening import STORE, opened
from iqa_harness.api.reading import aggregated
from iqa_harness.cells.plan import plan_rivals
from iqa_harness.cells.selection import recorded_selection, recorded_suite
from iqa_harness.entrants.naming import Model
from iqa_harness.errors import RunError
from iqa_harness.evidence.flags import Flag
from iqa_harness.evidence.judgement import plant_flag
from iqa_harness.evidence.model_checks import blocked_by
from iqa_harness.machine.devices import own_threads
from iqa_harness.machine.places import require_folder
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.power import PLANTED, find_plants, keep_plants, wanted
from iqa_harness.tables.power import plants_of, power_rows
from iqa_reports import TableView, power_view
from iqa_results import POWER, Plant, Power, ResultStore
from iqa_suites import LoadedSuite, Suite

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class PowerTest:
    """What attacks found of plants in some models' scores."""

    rows: tuple[Plant, ...]
    """One a (model, attack, plant)."""
    power: tuple[Power, ...]
    """One a (model, attack, grade), and one of all plants that must be found."""
    flags: Mapping[str, Flag]
    """The flag `plant_missed` by model."""

    @property
    def table(self) -> pd.DataFrame:
        """The power as a DataFrame; `iqa_results.POWER`."""
        frame: pd.DataFrame = POWER.to_table(self.power).to_pandas()
        return frame

    @property
    def missed(self) -> list[str]:
        """Models whose flag is raised."""
        return [model for model, flag in self.flags.items() if flag.raised]

    def view(self) -> TableView | None:
        """Return the table as reports show it, None if nothing was planted."""
        return power_view(self.power)

    def summary(self) -> dict[str, Any]:
        """Return what a program wants to know."""
        return {"power": self.power, "missed": self.missed, "flags": self.flags}

    def __repr__(self) -> str:
        return str(self.table.to_string(index=False))

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False))


@own_threads
def power(
    run: str | None = None,
    *,
    suite: str | Path | Suite | LoadedSuite | None = None,
    models: Model | Mapping[str, Any] | Iterable[Model] = (),
    images: int = PLANTED,
    attacks: Sequence[str] = (),
    store: str | Path | ResultStore = STORE,
    data: Any = None,
    device: str = "cpu",
    threads: int | None = None,
    cache: str | Path | None = None,
    backbone_weights: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    progress: bool = True,
) -> PowerTest:  # one argument an option of the command
    """Plant basins in models' scores and see which of them a suite's attacks find.

    Of a stored run the rows are kept beside its tables, its flag `plant_missed` and its verdicts follow them,
    and what is there is not made again. With a suite and models instead, nothing is stored. An attack costs,
    for each of 8 grades, about twice what it costs on so many images at one radius.

    Args:
        run: its name in the store.
        suite: instead of a run, by name, path or object.
        models: with a suite those to test; with a run where its models are now, by the run's names.
        images: how many are planted near, an even number.
        attacks: names of the suite's attacks; all gradient attacks and noise at the main radius if left out.
        store: folder or URL of results.
        data: where the images are now, or other ones for a suite.
        device: torch device.
        threads: threads within one operation, torch's own if left out.
        cache: folder of the embedded data.
        backbone_weights: file for the trunks of models created by name.
        plugins: Python files of yours that register models.
        progress: say on standard error how far it is.

    Raises:
        RunError: neither or both of run and suite, an attack that is not there, models that are others now.
    """
    if (run is None) == (suite is None):
        raise RunError("name a stored run, or a suite and models to try its attacks on")
    if images < 2 or images % 2:
        raise RunError(f"plants stand near an even number of images, half of them to be raised, not {images}")
    set_up(device, threads, plugins, exact=True)
    if suite is not None:
        entrants = entrants_of(models, backbone_weights=backbone_weights, plugins=plugins, tell=progress)
        if not entrants:
            raise RunError("no model to plant anything in; name at least one with --model")
        loaded, source = suite_on_data(as_suite(suite), data, None, cache, progress)
        work = plan_rivals(loaded.suite, [], source)
        rows: list[Plant] = []
        asked = wanted(work, {e.label: e.sha256 for e in entrants}, images, attacks)
        find_plants(asked, entrants, Runtime(device=device), rows.extend, progress=progress)
        return _judged({e.label: [row for row in rows if row.model == e.label] for e in entrants})
    results = opened(store)
    require_folder(str(results.root), "--store")
    manifest = results.read_manifest(str(run))
    entrants = entrants_of_run(
        manifest, models, plugged=bool(plugins), backbone_weights=backbone_weights,
        wanted=lambda record: not blocked_by(record.checks),
    )  # fmt: skip
    source = images_of_run(manifest, data, cache)
    work = plan_rivals(recorded_suite(manifest), [], source, recorded_selection(manifest, source))
    asked = wanted(work, {e.label: e.sha256 for e in entrants}, images, attacks)
    keep_plants(asked, entrants, Runtime(device=device), results, manifest.run, progress=progress)
    manifest, _ = aggregated(results, manifest.run)
    return _judged(plants_of(results, manifest.run, manifest.models))


def _judged(plants: Mapping[str, Sequence[Plant]]) -> PowerTest:
    power = {model: power_rows(model, rows) for model, rows in plants.items()}
    return PowerTest(
        tuple(row for rows in plants.values() for row in rows),
        tuple(row for rows in power.values() for row in rows),
        {model: plant_flag(rows) for model, rows in power.items()},
    )
