"""Train a grid of settings on every seed, run a suite on all of it, and put both into one table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Unpack

from iqa_harness.api.train import SessionOptions
from iqa_harness.errors import DataError, HarnessError, RunError
from iqa_harness.machine.places import require_folder
from iqa_harness.machine.terminal import say
from iqa_harness.studies.study import Study, StudyRow, SuiteRun, load_study, study_rows
from iqa_harness.studies.study import list_studies as _names
from iqa_harness.training.sessions import Settings, TrainSession, read_seeds, read_settings
from iqa_reports import TableView, html_table, table_text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from iqa_harness.data.image_set import ImageSet
    from iqa_harness.studies.contrasts import ContrastRow
    from iqa_harness.studies.table import RowResult, Worst
    from iqa_harness.training.tables import Table
    from iqa_results import ResultStore
    from iqa_suites import Suite


@dataclass(frozen=True, repr=False)
class Studied:
    """What the runs of a study came to."""

    study: Study
    folder: Path
    """Of the runs and the table."""
    shown: Table
    """The table as plain values, and as people see it."""
    compared: Table | None
    """The study's contrasts likewise; None without any, or without a suite."""
    failures: dict[tuple[str, int], str]
    """(row, seed) to why there is no checkpoint."""
    files: tuple[Path, ...]
    """The tables as CSV, Parquet and Markdown."""

    @property
    def title(self) -> str:
        """Name and summary."""
        return f"{self.study.name}: {self.study.summary}"

    @property
    def table(self) -> pd.DataFrame:
        """One row a point: settings, mean and deviation of every figure over seeds, seconds, status."""
        import pandas as pd

        return pd.DataFrame(self.shown.rows)

    @property
    def contrasts(self) -> pd.DataFrame:
        """One row a contrast, suite, kind of value, radius and metric; a `studies.contrasts.ContrastRow`."""
        import pandas as pd

        return pd.DataFrame([] if self.compared is None else self.compared.rows)

    @property
    def view(self) -> TableView:
        """The table as people see it."""
        return self.shown.view._replace(caption=self.title)

    def __repr__(self) -> str:
        return table_text(self.view)

    def _repr_html_(self) -> str:
        return html_table(self.view)


def study(
    name: str | Path | Study,
    *,
    settings: Settings | None = None,
    seeds: str | Sequence[int] | None = None,
    out: Path | str | None = None,
    store: Path | str = "iqa-store",
    plugins: Sequence[Path | str] = (),
    suite: str | None = None,
    no_attack: bool = False,
    workers: int | None = None,
    **options: Unpack[SessionOptions],
) -> Studied:
    """Train every point of a study on every seed and put them into one table; finished runs are kept.

    Every keyword is an option of `iqa-harness study`, hence their number.

    Args:
        name: a study's name, the path of a TOML file, or a study.
        settings: changes to the base, key to value or ``key=value`` texts.
        seeds: other seeds than the study's.
        out: folder of runs and table, by default ``studies/NAME`` in the store.
        store: folder the suite's results go to.
        plugins: Python files of yours that register models; they are run.
        suite: attack suite for the worst cases, instead of all of the study's.
        no_attack: train and score only.
        workers: processes that attack; training is one process.
        **options: data (images instead of the study's own, by name or as a set), mos_range (ends of a CSV's
            label scale), cache, backbone_weights, device, save_every (steps), progress; see the fields of
            `TrainSession`.

    Raises:
        TrainingError: no such study, or a setting that is refused; nothing has been trained then.
        DataError: images that are not there or cannot be used.
        SuiteError: a suite that cannot be used.
        RunError: a folder that cannot be written, a device that is not there, a plugin that raises.
    """
    from iqa_harness.api.inputs import set_up

    if no_attack and (suite is not None or workers is not None):
        raise RunError("--suite and --workers are for the attacks that --no-attack leaves out")
    session = TrainSession.of(**options)
    chosen, rows = _plan(name, session.data, settings, seeds, suite, plugins)
    if no_attack:
        chosen = chosen.model_copy(update={"suite": None, "suites": ()})
    require_folder(out, "--out")
    require_folder(store, "--store")
    set_up(session.device, None)
    for wanted in chosen.suite_runs:
        from iqa_suites import load_suite

        load_suite(wanted.suite)  # what is wrong with it is known before hours of training
    folder = Path(out) if out is not None else Path(store) / "studies" / chosen.name
    results = [_run_row(row, folder, session) for row in rows]
    attacked: list[_Attacked] = []
    for wanted in chosen.suite_runs:
        run = _attack(chosen, wanted, results, folder, Path(store), session, workers, attacked)
        attacked += [] if run is None else [run]
    return _written(chosen, results, attacked, folder)


def list_studies() -> dict[str, str]:
    """Return the studies that ship with the harness: name to what is compared."""
    return {name: load_study(name)[0].summary for name in _names()}


def show_study(
    name: str | Path,
    *,
    data: str | Path | ImageSet | None = None,
    settings: Settings | None = None,
    seeds: str | Sequence[int] | None = None,
    plugins: Sequence[Path | str] = (),
) -> str:
    """Return a study's TOML and, behind it as comments, the rows it means; trains nothing.

    Raises:
        TrainingError: no such study, or a setting that is refused.
    """
    chosen, rows = _plan(name, data, settings, seeds, None, plugins)
    lines = [f"# {len(rows)} row(s), seeds {', '.join(map(str, chosen.seeds))}"]
    lines += [f"# {row.label}: {row.settings}" for row in rows]
    return "\n".join([load_study(str(name))[1], *lines])


def _plan(
    name: str | Path | Study,
    data: str | Path | ImageSet | None,
    settings: Settings | None,
    seeds: str | Sequence[int] | None,
    suite: str | None,
    plugins: Sequence[Path | str],
) -> tuple[Study, list[StudyRow]]:
    """Return the study a user means and its rows, all settings checked."""
    found = name if isinstance(name, Study) else load_study(str(name))[0]
    changes: dict[str, object] = {} if seeds is None else {"seeds": tuple(read_seeds(seeds))}
    if suite is not None:
        changes |= {"suite": suite, "suites": ()}
    found = found.model_copy(update=changes)
    if plugins:
        from iqa_harness.api.inputs import run_plugins

        run_plugins(plugins)
    return found, study_rows(found, read_settings(settings, data))


def _run_row(row: StudyRow, folder: Path, session: TrainSession) -> RowResult:
    """Train a row's runs; one that cannot be trained is recorded, the others go on."""
    from iqa_harness.studies.table import RowResult
    from iqa_harness.training.figures import Figures, figures_of
    from iqa_models.errors import ModelError

    figures: dict[int, Figures] = {}
    failures: dict[int, str] = {}
    images = session.open(next(iter(row.configs.values())))
    for seed, config in row.configs.items():
        path = run_folder(folder, row.label, seed)
        try:
            session.train(config, images, path)
            figures[seed] = figures_of(path, images, session.device)
        except DataError:
            raise  # the images are the same for all rows
        except (HarnessError, ModelError) as error:
            failures[seed] = str(error)
            if session.progress:
                say(f"failed: {row.label}, seed {seed}: {error}", err=True)
    return RowResult(row, figures, failures)


class _Attacked(NamedTuple):
    """A suite's run on checkpoints of a study."""

    store: ResultStore
    run: str
    suite: Suite
    names: dict[str, tuple[str, int]]
    """Model of the run to row and seed."""
    further: bool
    """Whether it is one of several, and its columns carry its name."""


def _attack(
    study: Study,
    wanted: SuiteRun,
    results: list[RowResult],
    folder: Path,
    store: Path,
    session: TrainSession,
    workers: int | None,
    former: Sequence[_Attacked],
) -> _Attacked | None:
    """Run a suite on the checkpoints it is meant for; None if there is none of them.

    How gradients are computed is measured once a checkpoint, in the first of the suites.
    """
    from iqa_harness.api.attack import attack
    from iqa_harness.machine.tuning import choices_of
    from iqa_results import write_parquet
    from iqa_suites import load_suite

    names = {
        f"{result.row.label}.seed{seed}": (result.row.label, seed)
        for result in results
        for seed in result.figures
        if wanted.takes(result.row.label, seed)
    }
    if not names:
        return None
    suite = load_suite(wanted.suite).suite
    further = "" if wanted.suite == study.suite else f"-{suite.name}"
    run = attack(
        wanted.suite, {label: run_folder(folder, *place) for label, place in names.items()},
        run=f"study-{study.name}{further}", data=session.data, mos_range=session.mos_range, store=store,
        device=session.device, cache=session.cache, replace=True, workers=workers, progress=session.progress,
        choices=tuple(c for one in former for c in choices_of(one.store.read_manifest(one.run))),
    )  # fmt: skip
    tested = {figures.data for result in results for figures in result.figures.values()}
    frame = _frame_of(run.store, run.name, list(names), tested)
    write_parquet(folder / f"{study.name}{further}-worst.parquet", frame)
    return _Attacked(run.store, run.name, suite, names, bool(further))


def _at_main(attacked: _Attacked) -> dict[tuple[str, int], Worst]:
    """Return suite_min and composed at the suite's main radius by (label, seed), None where there is none."""
    suite, names = attacked.suite, attacked.names
    main, behind = float(suite.main_epsilon), f" ({suite.name})" if attacked.further else ""
    radius = f"{main * 255:.4g}/255" if suite.norm == "inf" else f"{main:.4g}"
    clean = f"attacked set, clean{behind}"
    titles = {row: f"{row} {suite.norm} {radius}{behind}" for row in ("suite_min", "composed")}
    worst: dict[tuple[str, int], dict[str, float | None]] = {
        place: dict.fromkeys((clean, *titles.values())) for place in names.values()
    }
    for row in attacked.store.read_table(attacked.run).to_pylist():
        at_main = row["metric"] == "srocc" and row["final"] and abs(row["epsilon"] - main) < 1e-12
        if at_main and row["model"] in names and row["row"] in titles:
            worst[names[row["model"]]] |= {clean: row["clean"], titles[row["row"]]: row["value"]}
    return dict(worst)


def _compare(study: Study, attacked: _Attacked) -> list[ContrastRow]:
    """Return the study's contrasts of which this suite attacked both rows on the same seeds."""
    from iqa_harness.studies.contrasts import contrast_rows
    from iqa_harness.tables.robustness import standings_of

    names = {place: name for name, place in attacked.names.items()}
    both = {
        (a, b): [seed for seed in study.seeds if (a, seed) in names and (b, seed) in names]
        for a, b in study.contrasts
    }
    wanted = {names[row, seed] for pair, seeds in both.items() for row in pair for seed in seeds}
    manifest = attacked.store.read_manifest(attacked.run)
    found = standings_of(attacked.store, manifest, sorted(wanted))
    return contrast_rows(
        attacked.suite.name,
        {
            (a, b): {seed: (found[names[a, seed]], found[names[b, seed]]) for seed in seeds}
            for (a, b), seeds in both.items()
            if seeds
        },
    )


def _frame_of(store: ResultStore, run: str, models: Sequence[str], tested: Collection[str]) -> pa.Table:
    """Return what a run found of some models as a frame of results, seeds put together.

    Clean values on sets that the checkpoints were tested on stand beside the checkpoints already.
    """
    from iqa_harness.reporting.results import results_of
    from iqa_harness.reporting.runs import FoundRun, read_run
    from iqa_reports import make_frame

    found = read_run(FoundRun(store, run), intervals=False)
    own = (row for row in found.estimates if row.model in models)
    chosen = tuple(row for row in own if row.row != "clean" or row.data not in tested)
    return make_frame("results", results_of([replace(found, estimates=chosen)]))


def _written(study: Study, results: list[RowResult], attacked: Sequence[_Attacked], folder: Path) -> Studied:
    """Write the tables; return what the study came to."""
    from iqa_harness.studies.contrasts import NOTE, contrast_table
    from iqa_harness.studies.table import study_table
    from iqa_harness.training.tables import write_table

    worst: dict[tuple[str, int], dict[str, float | None]] = {}
    for run in attacked:
        for place, values in _at_main(run).items():
            worst.setdefault(place, {}).update(values)
    table = study_table(results, worst)
    data = {figures.data for result in results for figures in result.figures.values()}
    notes = [
        *study.notes,
        f"Data: {', '.join(sorted(data)) or 'none'}; SROCC of raw scores, PLCC after a logistic fitted on "
        "val where one could be; mean ± sample deviation over seeds.",
    ]
    title = f"{study.name}: {study.summary}"
    files = write_table(folder / study.name, title, table, notes)
    rows = [row for run in attacked for row in _compare(study, run)] if study.contrasts else []
    compared = contrast_table(rows) if rows else None
    if compared is not None:
        files += write_table(folder / f"{study.name}-contrasts", f"{title}: differences", compared, [NOTE])
    failures = {(r.row.label, seed): why for r in results for seed, why in r.failures.items()}
    return Studied(study, folder, table, compared, failures, tuple(files))


def run_folder(folder: Path, label: str, seed: int) -> Path:
    """Return the folder of one run of a study."""
    return folder / label / f"seed-{seed}"
