"""Plan a suite on some models, say what it costs, run it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from iqa_harness.api.opening import STORE, opened
from iqa_harness.api.reading import aggregated, teller
from iqa_harness.api.run import Run
from iqa_harness.cells.estimate import Estimate, Experience, by_model_and_attack
from iqa_harness.cells.plan import Cell, Work
from iqa_harness.cells.plan import plan as plan_work
from iqa_harness.data import ImageSet, open_data
from iqa_harness.entrants.defended import with_bare
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.foreign import measure_cards
from iqa_harness.entrants.naming import Model, as_entrants, notes_on, run_plugins
from iqa_harness.errors import RunError
from iqa_harness.evidence.model_checks import blocked_by
from iqa_harness.machine.devices import own_threads, use_devices
from iqa_harness.machine.places import require_folder
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.terminal import Meter
from iqa_harness.machine.tuning import Tuning
from iqa_harness.running.executors import Executor, make_executor
from iqa_harness.running.manifest import RunConfig, readable, replaced_models
from iqa_harness.running.power import Wanted, keep_plants, stored_keys, wanted
from iqa_harness.running.run import missing_cells, run_suite
from iqa_harness.wording import in_words
from iqa_results import ResultStore, Selection
from iqa_suites import LoadedSuite, Suite, load_suite
from iqa_suites.schema import EMBEDDED


@dataclass(frozen=True)
class Planned:
    """A suite made concrete: which cells there are, which are missing, what they cost. `run` is next."""

    work: Work
    entrants: tuple[Entrant, ...]
    config: RunConfig
    store: ResultStore
    runtime: Runtime
    missing: tuple[Cell, ...]
    """Cells that are not in the store."""
    todo: tuple[Cell, ...]
    """Of them those that were asked for."""
    executor: Executor
    data: ImageSet
    """The images the suite's were taken from."""

    @property
    def estimate(self) -> Estimate:
        """What all that is to do costs together."""
        return Experience(readable(self.store)).of(self.todo, self.work.suite.sha256)

    @property
    def plants(self) -> Wanted | None:
        """What is planted in the models after the run's cells; None if the suite asks for nothing."""
        count = self.work.suite.plants
        if count is None or self.config.only:
            return None
        return wanted(self.work, {cell.label: cell.model_sha256 for cell in self.work.cells}, count)

    def lines(self) -> list[str]:
        """Say what is there, what is to do and about what it costs."""
        work, todo = self.work, self.todo
        out = len(self.missing) - len(todo)
        left = f", {out} left out by --only" if out else ""
        lines = [
            f"suite {work.suite.name}: {len(self.entrants)} model(s), {len(work.images)} images of "
            f"{work.images.card.name}, {len(work.cells)} cells, {len(work.cells) - len(self.missing)} in the "
            f"store, {len(todo)} to compute{left}"
        ]
        if work.selection:
            lines.append(f"only {work.selection}")
        if not todo:
            return lines
        experience = Experience(readable(self.store))
        sha256 = work.suite.sha256
        for (label, attack), cells in by_model_and_attack(todo).items():
            each = experience.of(cells, sha256)
            time = f", about {in_words(each.seconds)}" if each.seconds is not None else ""
            lines.append(
                f"  {label} {attack}: {each.cells} cells, about {each.backwards:,.0f} gradients and "
                f"{each.forwards:,.0f} evaluations{time}"
            )
        whole = experience.of(todo, sha256)
        time = (
            "not known before the first cells"
            if whole.seconds is None
            else f"about {in_words(whole.seconds)}"
        )
        lines.append(f"  together about {whole.backwards:,.0f} gradients; time on one worker: {time}")
        return lines

    def summary(self) -> dict[str, Any]:
        """Return what a program wants to know: how many cells there are and are to do, what they cost."""
        return {
            "run": self.config.name,
            "suite": self.work.suite.name,
            "models": [entrant.label for entrant in self.entrants],
            "images": len(self.work.images),
            "cells": len(self.work.cells),
            "missing": len(self.missing),
            "todo": len(self.todo),
            "estimate": self.estimate,
        }

    def stored(self) -> Run | None:
        """Return the run if the store has it whole, as planned; its models need not be made for that."""
        if self.missing or self.config.keep_images or self.config.name not in self.store.list_runs():
            return None
        with self.store.locked_run(self.config.name):
            manifest = self.store.read_manifest(self.config.name)
            keys = {cell.key for cell in self.work.cells}
            if manifest.status != "complete" or {cell.key for cell in manifest.cells} != keys:
                return None
            plants = self.plants
            if plants is not None and not plants.keys <= stored_keys(self.store, manifest.run):
                return None
            manifest, tables = aggregated(self.store, manifest.run)
            return Run(self.store, manifest, tables, (), self.data, frozenset(keys))

    @own_threads
    def run(self, *, progress: bool = True) -> Run:
        """Compute what is to do and aggregate; see `attack`."""
        use_devices(self.runtime.devices, self.runtime.threads, exact=True)
        tell = teller(progress)
        replaced = replaced_models(self.store, self.config.name, self.work) if self.config.replace else ()
        for label in replaced:
            tell(
                f"{label} is another model than the run held; cells of the former one are of no run now "
                "(`iqa-harness runs gc`)"
            )
        total = len(self.work.cells) - (len(self.missing) - len(self.todo))
        with Meter("attacking", total, show=progress) as meter:

            def on_cell(cell: Cell, status: str) -> None:
                meter.advance(doing=f"{cell.label} {cell.attack_name}")

            manifest = run_suite(
                self.work, self.entrants, self.config, self.store, self.runtime, on_cell,
                on_estimate=meter.expect, executor=self.executor,
            )  # fmt: skip
        if (plants := self.plants) is not None:
            blocked = {model.name for model in manifest.models if blocked_by(model.checks)}
            usable = [entrant for entrant in self.entrants if entrant.label not in blocked]
            keep_plants(plants, usable, self.runtime, self.store, manifest.run, progress=progress)
        with self.store.locked_run(manifest.run):  # of two processes the later one sees the cells of both
            manifest, tables = aggregated(self.store, manifest.run)
        only = self.config.only
        asked = frozenset(cell.key for cell in self.work.cells if not only or cell.family in only)
        return Run(self.store, manifest, tables, self.entrants, self.data, asked)


class RuntimeOptions(TypedDict, total=False):
    """How the work is carried out: see the fields of `Runtime`."""

    device: str
    chunk: int | None
    threads: int | None
    executor: str | None
    workers: int | None
    address: str
    cpus: int | None
    gpus: float
    settings: tuple[str, ...]
    tune: str
    choices: tuple[Tuning, ...]


class AttackOptions(RuntimeOptions, total=False):
    """What may be said of a run beside suite and models; all of it may be left out."""

    run: str | None
    """Name of the run; the suite's if left out."""
    data: Any
    """Other images than the suite's: a name as after ``--data``, an image set, a list of (path, MOS) pairs, a
    data frame; see `iqa_harness.data.open_data`."""
    mos_range: tuple[float, float] | None
    """Ends of the label scale, where `data` does not say them."""
    limit: int | None
    """Only the first so many images; every table says so."""
    images: Sequence[str]
    """Only the images of these ids; every table says so."""
    only: Sequence[str]
    """Compute these attacks and the clean scores only (`clean`: these alone); the rest stays to do."""
    keep_images: bool
    """Store the attacked images too, bit for bit."""
    replace: bool
    """Let a model that was trained again take its name in the run from the former one."""
    store: str | Path | ResultStore
    """Folder or URL of results, `iqa-store` if left out."""
    cache: str | Path | None
    """Folder of the embedded data."""
    backbone_weights: str | Path | None
    """File for the trunks of models created by name."""
    plugins: Sequence[str | Path]
    """Python files of yours that register models."""
    runtime: Runtime | None
    """Devices, sizes and workers as one record, instead of each by itself."""


@own_threads
def plan(
    suite: str | Path | Suite | LoadedSuite,
    models: Model | Mapping[str, Any] | Iterable[Model],
    *,
    progress: bool = True,
    **options: Unpack[AttackOptions],
) -> Planned:
    """Plan a suite on some models without computing anything.

    Args:
        suite: by name, the path of a TOML file, or a `Suite`.
        models: see `attack`.
        progress: say on standard error what must be known of the models.
        **options: see `AttackOptions`.

    Raises:
        HarnessError and the other packages' errors: see `attack`.
    """
    results = opened(options.get("store", STORE))
    runtime = _runtime(options)
    executor = make_executor(runtime, results)
    files = run_plugins(options.get("plugins"))  # first: they may register attacks of the suite
    loaded = as_suite(suite)
    name = options.get("run") or loaded.suite.name
    results.run_folder(name)  # refuses a bad name before anything is made
    use_devices(runtime.devices, runtime.threads, exact=True)
    named = as_entrants(models, backbone_weights=options.get("backbone_weights"), plugins=files)
    entrants = with_bare(named)
    tell = teller(progress)
    for note in notes_on(entrants, str(results.root)):
        tell(note)
    data, mos_range, cache = options.get("data"), options.get("mos_range"), options.get("cache")
    loaded, source = suite_on_data(loaded, data, mos_range, cache, progress)
    selection = Selection(options.get("limit"), tuple(options.get("images", ())))
    entrants = measure_cards(entrants, source.split(loaded.suite.data.split), runtime.devices[0])
    work = plan_work(loaded.suite, entrants, source, selection)
    only = tuple(options.get("only", ()))
    known = list(dict.fromkeys(cell.family for cell in work.cells))
    for family in only:
        if family not in known:
            raise RunError(f"--only {family}: no attack of the suite; there are {', '.join(known)}")
    if only:  # an attack's numbers are compared with clean scores
        only = (*only, "clean")
    missing = tuple(missing_cells(work, results))
    todo = tuple(cell for cell in missing if not only or cell.family in only)
    keep, replaces = options.get("keep_images", False), options.get("replace", False)
    config = RunConfig(name, loaded.text, only, keep, replaces)
    return Planned(work, tuple(entrants), config, results, runtime, missing, todo, executor, source)


@own_threads
def attack(
    suite: str | Path | Suite | LoadedSuite,
    models: Model | Mapping[str, Any] | Iterable[Model],
    *,
    progress: bool = True,
    **options: Unpack[AttackOptions],
) -> Run:
    """Run a suite on models; cells that are in the store already are not computed again.

    It can be interrupted at any moment; the same call goes on from there. A cell that failed is tried again.
    A model that gives no usable number is `invalid` with the reason, and the others go on.

    Args:
        suite: by name, the path of a TOML file, or a `Suite`.
        models: words as after ``--model``, checkpoint folders, live modules, or a mapping from label to one
            of these; see `iqa_harness.entrants.naming.as_entrant`.
        progress: show on standard error how far it is.
        **options: run, data, store, device and so on; see `AttackOptions`.

    Returns:
        The run, its tables made. `run.failed` are cells with an error; they are missing in the tables.

    Raises:
        HarnessError and the other packages' errors: unknown names, unusable data or models, no model that
            passes the checks without which no number can be made, a run of that name that is another one.
    """
    require_folder(str(opened(options.get("store", STORE)).root), "--store")
    return plan(suite, models, progress=progress, **options).run(progress=progress)


def load_run(run: str, store: str | Path | ResultStore = STORE) -> Run:
    """Return a stored run; its tables are made anew if they would come out otherwise now.

    Raises:
        ResultsError: no such run, or a damaged file.
    """
    results = opened(store)
    return Run(results, *aggregated(results, run))


def as_suite(suite: str | Path | Suite | LoadedSuite) -> LoadedSuite:
    """Return a suite with its text, whatever it was given as."""
    if isinstance(suite, LoadedSuite):
        return suite
    if isinstance(suite, Suite):
        import tomlkit

        return LoadedSuite(
            suite, tomlkit.dumps(suite.model_dump(mode="json", by_alias=True, exclude_none=True))
        )
    return load_suite(str(suite))


def _runtime(options: AttackOptions) -> Runtime:
    given = options.get("runtime")
    how = {name: value for name, value in options.items() if name in RuntimeOptions.__annotations__}
    if given is None:
        return Runtime(**how)  # type: ignore[arg-type]  # the keys are its fields
    if how:
        raise RunError(f"give a runtime or its fields, not both: {', '.join(how)}")
    return given


def suite_on_data(
    loaded: LoadedSuite,
    data: Any,
    mos_range: tuple[float, float] | None,
    cache: str | Path | None,
    progress: bool,
) -> tuple[LoadedSuite, ImageSet]:
    """Return the suite as it is run, and the images it is run on."""
    if data is None and mos_range is not None:
        raise RunError("--mos-range goes with --data; for the suite's own CSV write mos_range in its [data]")
    if data is None or isinstance(data, str | Path):
        moved = loaded if data is None else loaded.on_data(str(data), mos_range)
        named = moved.suite.data
        images = open_data(named.name, cache_dir=cache, mos_range=named.mos_range, progress=progress)
        return moved, images
    images = open_data(data, cache_dir=cache, mos_range=mos_range, progress=progress)
    if images.card.name == loaded.suite.data.name:
        return loaded, images
    stated = None if images.card.name in EMBEDDED else images.card.mos_range
    return loaded.on_data(images.card.name, stated), images
