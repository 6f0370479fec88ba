"""Compute the cells that are missing, and record the run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial

from iqa_harness.cells.estimate import Experience, dearest_first
from iqa_harness.cells.plan import Cell, Work
from iqa_harness.entrants.defended import bare_label
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evidence.model_checks import UNCHANGED, blocked_by
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.choices import choose
from iqa_harness.running.executors import Executor, Job, Task, make_executor, tasks_of
from iqa_harness.running.executors.bench import Bench
from iqa_harness.running.executors.snapshot import write_snapshot
from iqa_harness.running.ledger import Ledger, planned
from iqa_harness.running.manifest import ManifestLog, RunConfig, former_manifest, readable
from iqa_harness.running.model_records import Before, model_record
from iqa_harness.running.stored_scores import changed_score
from iqa_results import ModelRecord, ResultStore, RunManifest
from iqa_results.storage import no_room

SHARED_OUT = ("processes", "ray")
"""Executors whose workers take a task when they have done one."""
OnCell = Callable[[Cell, str], None]
"""Told after every cell: the cell and `cached`, `done` or `failed`."""
Changed = Callable[[Entrant, Collection[str]], str | None]
"""Says of a model, but for the cells of some keys, which stored score is not its own: `changed_score`."""


def run_suite(
    work: Work,
    entrants: Sequence[Entrant],
    config: RunConfig,
    store: ResultStore,
    runtime: Runtime = Runtime(),  # noqa: B008 - a frozen record
    on_cell: OnCell = lambda cell, status: None,
    *,
    on_estimate: Callable[[float], None] = lambda seconds: None,
    executor: Executor | None = None,
) -> RunManifest:
    """Compute the missing cells of a plan and write the run's manifest.

    A cell that fails twice is recorded with its error and the others go on, as is one whose part is gone
    again when the run ends; the next call tries it again. So are the cells of a model that fails a check
    without which no number can be made: it is invalid, and the other models go on. A disk without room ends
    the run at once. An interrupt (Ctrl-C) leaves the finished parts and a manifest that says `interrupted`; a
    killed run leaves the parts and a manifest that says `running`. The same call computes the rest.

    Args:
        work: what `plan` returned.
        entrants: the models of the plan.
        config: name, suite and choice of cells.
        store: where parts and manifest go.
        runtime: devices, chunk size, workers, and how gradients are computed; see `Runtime` for what rows
            depend on.
        on_cell: told after every cell.
        on_estimate: told before the first cell about how many seconds all take, where gradients of all models
            were timed.
        executor: where cells are computed, None for the runtime's.

    Returns:
        The manifest as written.

    Raises:
        RunError: every model fails a check without which no number can be made, a run of that name is of
            another suite, data set or model, stored scores are not the model's, or the executor cannot start.
        OSError: the store has no room for a part; the manifest says `interrupted`, if there is room for that.
        KeyboardInterrupt: after the manifest is written.
    """
    executor = executor or make_executor(runtime, store)
    former = former_manifest(store, work, config)
    models = {entrant.label: entrant.model.to(runtime.devices[0]) for entrant in entrants}
    ledger = Ledger(store, planned(work.cells, former))
    cells, missing = {cell.key: cell for cell in work.cells}, set(ledger.missing())
    busy = {cells[key].label for key in missing}
    records = _records(work, entrants, runtime, former, busy)
    reasons = _not_to_run(records, work, missing)
    ledger.refuse(reasons)
    changed, runs = partial(changed_score, work, store, runtime.devices[0]), partial(readable, store)
    kept = _usable(entrants, records, changed, missing)
    choices = choose(work, [e for e, _ in kept], runtime, former, missing, executor.name, runs)
    runtime = replace(runtime, choices=choices)
    log = ManifestLog(store, work, config, records, ledger, runtime, executor.name)
    _tell(on_cell, work, missing, reasons)
    tasks = _tasks(work, store, config, missing - set(reasons))
    if tasks:
        log.write("running")
        _expect(on_estimate, [cells[ref.key] for task in tasks for ref in task.cells], runtime, former, work)
    before = Before(work.images, work.suite.eot_samples, {record.name: record.checks for record in records})
    bench = Bench(models.__getitem__, work.images_of, lambda ref: cells[ref.key], store, runtime, before)
    job = Job(bench.run, lambda folder: write_snapshot(folder, work, kept, store, runtime))
    outcomes = executor.run(job, _in_order(tasks, cells, executor, former, work.suite.sha256))
    try:
        for outcome in outcomes:
            refs = () if outcome.number is None else tasks[outcome.number].cells
            states = ledger.take(outcome, [ref.key for ref in refs], executor.name)
            for ref in refs:
                on_cell(cells[ref.key], {"found": "cached"}.get(states[ref.key], states[ref.key]))
            log.write_now_and_then()
        ledger.look_again()
        log.models = _measured_again(entrants, records, former, busy, bench, ledger, changed)
    except BaseException as error:  # an interrupt, or an executor that cannot go on
        with suppress(OSError) if no_room(error) else nullcontext():
            log.write("interrupted")
        raise
    finally:
        outcomes.close()
    return log.write(None)


def _expect(
    on_estimate: Callable[[float], None],
    todo: Sequence[Cell],
    runtime: Runtime,
    former: RunManifest | None,
    work: Work,
) -> None:
    """Tell about how long some cells take, if it is known of all their models."""
    experience = Experience([former] if former else ())
    for choice in runtime.choices:
        gradient = choice.tuned_ms or choice.plain_ms
        if gradient is not None:
            experience.learn(choice.model_sha256, gradient / 1e3)
    seconds = experience.of(todo, work.suite.sha256).seconds
    if seconds:
        on_estimate(seconds / (len(runtime.devices) * (runtime.workers or 1)))


def _records(
    work: Work,
    entrants: Sequence[Entrant],
    runtime: Runtime,
    former: RunManifest | None,
    busy: Collection[str],
) -> list[ModelRecord]:
    """Describe and check the models; those that nothing is computed on may have been by an earlier start."""
    return [
        model_record(e, work, runtime, None if e.label in busy else former, bare_label(e, entrants))
        for e in entrants
    ]


def _tell(on_cell: OnCell, work: Work, missing: Collection[str], refused: Collection[str]) -> None:
    """Report the cells that are there, and those that cannot be computed."""
    for cell in work.cells:
        if cell.key in refused:
            on_cell(cell, "failed")
        elif cell.key not in missing:
            on_cell(cell, "cached")


def _not_to_run(records: Sequence[ModelRecord], work: Work, missing: Collection[str]) -> dict[str, str]:
    """Return the missing cells that cannot be computed, by key, each with the reason.

    Raises:
        RunError: no model is left.
    """
    blocked = {record.name: words for record in records if (words := blocked_by(record.checks))}
    if len(blocked) == len(records):
        name, words = next(iter(blocked.items()))
        raise RunError(f"model {name!r} {words}; its numbers would be wrong, so nothing was run")
    reasons = {}
    for cell in work.cells:
        name = next((label for label in (cell.label, *cell.sources) if label in blocked), "")
        if name and cell.key in missing:
            reasons[cell.key] = (
                f"model {name!r} {blocked[name]}; its numbers would be wrong, so it was not run"
            )
    return reasons


def _usable(
    entrants: Sequence[Entrant], records: Sequence[ModelRecord], changed: Changed, missing: Collection[str]
) -> list[tuple[Entrant, ModelRecord]]:
    """Return the models that are run, with their records.

    Raises:
        RunError: a stored clean score is not the model's.
    """
    kept = [(e, r) for e, r in zip(entrants, records, strict=True) if not blocked_by(r.checks)]
    for entrant, _ in kept:
        if (words := changed(entrant, missing)) is not None:
            raise RunError(f"model {entrant.label!r} {words}")
    return kept


def _measured_again(
    entrants: Sequence[Entrant],
    records: Sequence[ModelRecord],
    former: RunManifest | None,
    busy: Collection[str],
    bench: Bench,
    ledger: Ledger,
    changed: Changed,
) -> list[ModelRecord]:
    """Return the models' records, with the check after the run of those that were computed on now."""
    before = {(model.name, model.sha256): model for model in former.models} if former else {}
    missing, found = ledger.missing(), []
    for entrant, record in zip(entrants, records, strict=True):
        held = before.get((record.name, record.sha256), record).checks.get(UNCHANGED)
        if isinstance(held, Mapping) and not held.get("passed"):  # cells of that start are in the run
            found.append(record.model_copy(update={"checks": {**record.checks, UNCHANGED: dict(held)}}))
        elif entrant.label in busy and not blocked_by(record.checks):
            elsewhere, stored = ledger.unchanged.get(record.name), partial(changed, entrant, missing)
            check = bench.measured_again(record.name, record.sha256, stored, elsewhere)
            found.append(record.model_copy(update={"checks": {**record.checks, UNCHANGED: check._asdict()}}))
        else:
            found.append(record)
    return found


def _in_order(
    tasks: Sequence[Task],
    cells: Mapping[str, Cell],
    executor: Executor,
    former: RunManifest | None,
    suite_sha256: str,
) -> Sequence[Task]:
    """Return tasks as they are begun: the dearest first where workers take one after another."""
    if executor.name not in SHARED_OUT:
        return tasks
    groups = [[cells[ref.key] for ref in (*task.sources, *task.cells)] for task in tasks]
    experience = Experience([former] if former else ())
    return [tasks[place] for place in dearest_first(groups, experience, suite_sha256)]


def _tasks(work: Work, store: ResultStore, config: RunConfig, missing: Collection[str]) -> list[Task]:
    """Return what is to be computed: missing cells of the chosen attacks, and examples to be kept."""
    cells: Mapping[str, Cell] = {cell.key: cell for cell in work.cells}
    chosen = {key for key in missing if not config.only or cells[key].family in config.only}
    keep = []
    if config.keep_images:
        there, left_out = store.example_sizes(), set(missing) - chosen
        keep = [
            cell.key
            for cell in work.cells
            if cell.attack is not None
            and cell.surrogate is None
            and cell.key not in there
            and cell.key not in left_out
            and (not config.only or cell.family in config.only)
        ]
    return tasks_of(cells, chosen, keep)


def missing_cells(work: Work, store: ResultStore) -> list[Cell]:
    """Return the cells of a plan whose part is not in the store."""
    there = store.cell_sizes()
    return [cell for cell in work.cells if cell.key not in there]
