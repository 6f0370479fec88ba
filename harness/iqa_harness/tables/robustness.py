"""From stored rows to a run's tables: values, intervals, flags, differences, measures, fits.

A value is computed from all evaluated images or not at all: a missing or failed cell leaves an
`undefined` with its reason, never a number from fewer images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from iqa_attacks import HIGHEST_SEEN, LOWEST_SEEN
from iqa_harness.evidence.flags import Flag, verdict_of
from iqa_harness.evidence.judgement import Completeness, check_results, flags_without_scores
from iqa_harness.evidence.model_checks import blocked_by
from iqa_harness.machine.provenance import sources_sha256
from iqa_harness.measures.bootstrap import RESAMPLES, Replicates
from iqa_harness.measures.correlation import METRICS
from iqa_harness.measures.model_scores import (
    NOTHING,
    AttackKey,
    Hole,
    Judged,
    attack_vectors,
    judge,
    lost_images,
)
from iqa_harness.tables.closed_loop import closed_loop_rows, without_loops
from iqa_harness.tables.expected import Planned, planned_attacks
from iqa_harness.tables.measure_rows import measure_rows
from iqa_harness.tables.minima import Attacks, Ball, WorstRow, composed_rows, reached, suite_min_rows
from iqa_harness.tables.power import plants_of, power_rows
from iqa_harness.tables.radii import radius_attacks, radius_rows, without_radii
from iqa_harness.tables.rows import RowMaker, Scores, missing_rows
from iqa_harness.tables.ties import Place, Standing, difference_rows, with_ties
from iqa_results import (
    RUN_TABLES,
    BadPart,
    Estimate,
    LogisticFit,
    Measure,
    ModelRecord,
    Power,
    Reach,
    ResultStore,
    RunManifest,
    is_made_from,
    maker_of,
)
from iqa_results import Flag as FlagRow

ENDS = (LOWEST_SEEN, HIGHEST_SEEN)

USED = (
    "split", "image_id", "position", "reference", "mos", "attack", "kind", "objective", "norm", "epsilon",
    "steps", "final", "step_size", "clean_score", "adv_score", "adv_score_8bit", "adv_score_jpeg",
    "attack_score", "linf", "l2", "rmse", "ssim", "projection_moved", "forwards", "backwards",
    "zero_gradients", "gradient_l1", "seconds",
)  # fmt: skip
"""The columns of stored rows that tables are made from."""


class RobustnessTable(NamedTuple):
    """What a run amounts to: the tables of `iqa_results.RUN_TABLES`."""

    table: pa.Table
    intervals: pa.Table
    flags: pa.Table
    differences: pa.Table
    measures: pa.Table
    fits: pa.Table
    power: pa.Table
    cells: tuple[str, ...]
    """Keys of the cells all of it was made from."""
    maker: str
    """Hash of what made it from them: our code, its packages, and what the manifest says of the run."""

    @property
    def made_from(self) -> str:
        """Hash of the two: equal ones are equal tables."""
        return hashlib.sha256(json.dumps([self.maker, sorted(self.cells)]).encode()).hexdigest()

    def write(self, store: ResultStore, run: str) -> None:
        """Write every table into the run's folder, last the one that says what all were made from."""
        for name in RUN_TABLES:
            if name != "table":
                store.write_table(run, getattr(self, name), name)
        store.write_table(run, self.table, cells=self.cells, maker=self.maker)


class _ModelTables(NamedTuple):
    table: list[Estimate]
    intervals: list[Reach]
    flags: list[FlagRow]
    measures: list[Measure]
    fits: list[LogisticFit]
    power: list[Power]
    standings: list[tuple[Place, Standing]]


def stored_tables(store: ResultStore, manifest: RunManifest) -> RobustnessTable | None:
    """Return a run's tables from its folder if they would be made again as they are, None otherwise."""
    run, cells, maker = manifest.run, _done(manifest), _maker(store, manifest)
    if not all(store.has_table(run, name) for name in RUN_TABLES):
        return None
    try:
        tables = {name: store.read_table(run, name) for name in RUN_TABLES}
    except BadPart:  # damaged, or of an older version
        return None
    if maker_of(tables["table"]) != maker or not is_made_from(tables["table"], cells):
        return None
    return RobustnessTable(**tables, cells=cells, maker=maker)


def _done(manifest: RunManifest) -> tuple[str, ...]:
    return tuple(cell.key for cell in manifest.cells if cell.status == "done")


def _maker(store: ResultStore, manifest: RunManifest) -> str:
    """Hash what decides the tables; a cell computed anew has other seconds, be its rows equal or not."""
    costs = {"forwards", "backwards", "seconds", "flops"}
    names = {"run", "suite_sha256", "suite_text", "suite_min", "main_epsilon", "step_sweep", "seed", "data"}
    plan = manifest.model_dump(mode="json", include=names)
    models = [model.model_dump(mode="json", exclude=costs) for model in manifest.models]
    states = [[c.key, c.status, bool(c.error), c.seconds, c.bytes] for c in manifest.cells]
    content = [sources_sha256(), plan, models, states]
    plants = plants_of(store, manifest.run, manifest.models)
    if any(plants.values()):
        content.append({name: [(*row[:11], row.found) for row in rows] for name, rows in plants.items()})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def robustness_table(
    store: ResultStore, manifest: RunManifest, *, resamples: int = RESAMPLES
) -> RobustnessTable:
    """Compute a run's tables from its stored parts.

    Args:
        store: where the parts are.
        manifest: the run's.
        resamples: draws of the bootstrap behind every interval, seeded by the manifest's seed.

    Raises:
        BadPart: a part the manifest counts as done is damaged.
    """
    plants = plants_of(store, manifest.run, manifest.models)
    made = [
        _of_model(
            record,
            model_rows(store, manifest, record.name),
            power_rows(record.name, plants[record.name]),
            manifest,
            resamples,
        )
        for record in manifest.models
    ]
    table = [row for model in made for row in model.table]
    compared = _compared(manifest)
    # Every place that was planned, also where no model has a value.
    standings: dict[Place, list[Standing]] = {
        Place.of(row): [] for row in table if row.final and (row.row, row.epsilon) in compared
    }
    for model in made:
        for place, standing in model.standings:
            if place in standings:
                standings[place].append(standing)
    differences = difference_rows(standings, [record.name for record in manifest.models])
    joined = {
        name: [row for model in made for row in getattr(model, name)]
        for name in ("intervals", "flags", "measures", "fits", "power")
    }
    rows: dict[str, Any] = {"table": with_ties(table, differences), "differences": differences, **joined}
    return RobustnessTable(
        **{name: schema.to_table(rows[name], name) for name, schema in RUN_TABLES.items()},
        cells=_done(manifest),
        # Of fewer draws it is not what a report would make.
        maker=_maker(store, manifest) if resamples == RESAMPLES else "",
    )


def standings_of(
    store: ResultStore, manifest: RunManifest, models: Iterable[str]
) -> dict[str, dict[Place, Standing]]:
    """Return what models of a run are compared by, at every radius: model to place to standing.

    Args:
        store: where the parts are.
        manifest: the run's.
        models: names in the run.
    """
    records = {record.name: record for record in manifest.models}
    return {
        name: dict(
            _of_model(records[name], model_rows(store, manifest, name), [], manifest, RESAMPLES).standings
        )
        for name in models
    }


def _compared(manifest: RunManifest) -> set[tuple[str, float]]:
    """Return the rows and radii at which models are compared."""
    main = manifest.main_epsilon
    return {("clean", 0.0), ("suite_min", main), ("composed", main), ("closed_loop", main)}


def model_rows(store: ResultStore, manifest: RunManifest, model: str) -> pd.DataFrame:
    """Return all stored rows of one model of a run: USED columns, texts as sorted categories."""
    done = [c.key for c in manifest.cells if c.model == model and c.status == "done"]
    frame: pd.DataFrame = store.read_cells(done, USED).to_pandas()
    for name in frame.columns[frame.dtypes == "category"]:
        words = frame[name].cat
        frame[name] = words.reorder_categories(sorted(words.categories))
    return frame


def _of_model(
    record: ModelRecord, rows: pd.DataFrame, power: list[Power], manifest: RunManifest, resamples: int
) -> _ModelTables:
    expected, model = manifest.data.images, record.name
    apart = radius_attacks(manifest, model)
    manifest = without_radii(manifest, apart)
    is_apart = rows["attack"].isin(list(apart))
    rows_apart, rows = rows[is_apart], rows[~is_apart]
    clean = rows[(rows["attack"] == "clean") & (rows["split"] == manifest.data.split)]
    if len(clean) != expected:
        lost = expected - len(clean)
        reason = f"{lost} of {expected} images have no clean score (cells missing)"
        return _without_scores(record, manifest, power, blocked_by(record.checks) or reason)
    judged = judge(model, clean.sort_values("position"), rows, manifest, resamples=resamples)
    make, plan = RowMaker(manifest, judged), planned_attacks(manifest, model)
    every = Attacks(*attack_vectors(rows[rows["attack"] != "clean"], judged.ids))
    # The ends of all scores are candidates of the composed worst case, no attacks of their own.
    attacks = Attacks(
        {k: found for k, found in every.found.items() if k.objective not in ENDS},
        {k: hole for k, hole in every.holes.items() if k.objective not in ENDS},
    )
    nowhere = lost_images(expected, expected)
    absent = {k: Hole(nowhere, final) for k, final in plan.keys.items()
              if k not in attacks.found and k not in attacks.holes}  # fmt: skip
    balls = _balls(manifest, model, (*every.found, *every.holes, *absent), plan)
    # A prefix of the minimum needs every member; a hole of an attack is one of its ends, too.
    usual, loops = without_loops(every, plan)
    composed = composed_rows(make, usual, balls, loops)
    closed = closed_loop_rows(make, every, balls, loops, composed.chosen)
    worst = [*suite_min_rows(make, attacks, balls), *composed.rows, *closed]
    flags = check_results(record, judged, every.found, _completeness(manifest, model, worst), power)
    table = [*_plain_rows(make, attacks, absent), *(w.row for w in worst)]
    return _ModelTables(
        _judged_rows(table, flags),
        list(reached(judged, every, composed)),
        [FlagRow(model, *flag) for flag in flags],
        [
            *measure_rows(judged, attacks.found, manifest.main_epsilon),
            *radius_rows(judged, rows_apart, apart),
        ],
        [_fit_row(judged)],
        power,
        list(_standings(make, worst)),
    )


def _plain_rows(make: RowMaker, attacks: Attacks, absent: dict[AttackKey, Hole]) -> Iterator[Estimate]:
    """Yield the rows without attack and of every attack; of what has holes or is not there, why."""
    clean = Scores(make.judged.clean, make.judged.clean)
    yield from (make.defined("clean", metric, clean) for metric in METRICS)
    for key, found in attacks.found.items():
        for metric in METRICS:
            yield make.defined("attack", metric, Scores.of(found), key, final=found.final)
    for key, hole in ({**attacks.holes} | absent).items():
        yield from make.undefined("attack", hole.reason, key, final=hole.final)


def _balls(manifest: RunManifest, model: str, keys: Iterable[AttackKey], plan: Planned) -> list[Ball]:
    """Return every norm and radius; where nothing is stored those of the plan, in the suite's norm."""
    places = {(k.norm, k.epsilon) for k in keys}
    norm = plan.norm or next((norm for norm, _ in sorted(places)), None)
    if norm is not None:
        places |= {(norm, c.epsilon) for c in manifest.cells if c.model == model and c.attack != "clean"}
    return sorted(places)


def _without_scores(
    record: ModelRecord, manifest: RunManifest, power: list[Power], reason: str
) -> _ModelTables:
    """Return the tables of a model without clean scores: everything it was planned for is undefined."""
    model = record.name
    plan = planned_attacks(manifest, model)
    places: list[tuple[str, AttackKey, bool]] = [("clean", NOTHING, True)]
    places += [("attack", key, final) for key, final in plan.keys.items()]
    if plan.norm is not None:
        ball = AttackKey("", "", plan.norm, manifest.main_epsilon, 0)
        worst = ("suite_min", "composed", *(["closed_loop"] if plan.loops else []))
        places += [(row, ball, True) for row in worst]
    table = [
        line
        for row, key, final in places
        for line in missing_rows(manifest, model, row, reason, key, final=final)
    ]
    flags = flags_without_scores(record, _completeness(manifest, model, []), reason)
    fit = LogisticFit(model, "", 0, None, None, None, None, None, None, "failed", reason)
    return _ModelTables(
        _judged_rows(table, flags), [], [FlagRow(model, *flag) for flag in flags], [], [fit], power, []
    )


def _judged_rows(table: Sequence[Estimate], flags: list[Flag]) -> list[Estimate]:
    verdict, raised = verdict_of(flags)
    return [row._replace(verdict=verdict, flags=", ".join(raised)) for row in table]


def _completeness(manifest: RunManifest, model: str, worst: Sequence[WorstRow]) -> Completeness:
    """Return what of a model's plan counts for its verdict: the clean cells, and those at the main radius."""
    main = manifest.main_epsilon
    cells = [c for c in manifest.cells if c.model == model and (c.attack == "clean" or c.epsilon == main)]
    # SROCC is what models are ranked by; a PLCC may be undefined where a logistic is flat.
    rows = [w.row for w in worst if (w.row.epsilon, w.row.final, w.row.metric) == (main, True, "srocc")]
    defined = {row.row for row in rows if row.value is not None}
    reasons = sorted({row.undefined for row in rows if row.undefined})
    return Completeness(
        main_epsilon=main,
        planned=len(cells),
        missing=sum(c.status != "done" for c in cells),
        undefined=tuple(row for row in ("suite_min", "composed") if row not in defined),
        reason=reasons[0] if reasons else "",
    )


def _standings(make: RowMaker, worst: Iterable[WorstRow]) -> Iterator[tuple[Place, Standing]]:
    """Yield what models are compared by: the clean values, and the worst cases at every radius."""
    judged = make.judged

    def standing(attack: str, objective: str, found: Replicates) -> Standing:
        return Standing(judged.model, attack, objective, judged.ids, judged.bootstrap.drawn, found)

    for metric in METRICS:
        found = judged.clean_estimate(metric).replicates
        yield Place("clean", NOTHING.norm, NOTHING.epsilon, metric), standing("", "", found)
    for row, replicates in worst:
        if replicates and row.final:
            yield Place.of(row), standing(row.attack, row.objective, replicates)


def _fit_row(judged: Judged) -> LogisticFit:
    logistic = judged.fit.logistic
    b1, b2, b3, b4, b5 = logistic.on_scores if logistic else [None] * 5
    residual = logistic.rmse if logistic else None
    name, split, images, fit = judged.model, judged.fitted_on, judged.fitted_images, judged.fit
    return LogisticFit(name, split, images, b1, b2, b3, b4, b5, residual, fit.status, fit.detail)
