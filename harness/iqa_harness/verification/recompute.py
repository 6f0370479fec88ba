"""Checks, scores and attacks of a run, made again from its models and images; kept images scored again."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from iqa_attacks import AttackError
from iqa_harness.cells.compute import attacked_model, craft, run_cell
from iqa_harness.cells.examples import Examples, decode, used_elsewhere
from iqa_harness.cells.plan import Cell, Work
from iqa_harness.cells.scoring import Scorer
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evidence.check import Check, as_checks
from iqa_harness.evidence.model_checks import AGREES, FIRST_EDITION, UNCHANGED
from iqa_harness.machine.provenance import collect_provenance
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.tuning import Copies, choices_of
from iqa_harness.measures.model_scores import range_of
from iqa_harness.running.model_records import Before, measured_as_first, measured_checks
from iqa_harness.verification.finding import Finding, cell_name, row_name, shown, within
from iqa_harness.verification.rows import BUDGET_SLACK, SCORE_SLACK, UNPLANNED
from iqa_results import ROW, BadPart, ModelRecord, OtherVersion, ResultStore, RunManifest

AGAIN_SLACK = 1e-3
"""Largest difference of a number made again, in score ranges, or relative above 1: rounding decides signs of
gradients that are nearly zero."""
SIZE_SLACK = 1e-2
"""The same for the size of a change, relative."""
CHECK_SLACK = 0.02
"""The same for a check, relative above 1."""
COUNT_SLACK = 0.1
"""The same for counted evaluations, relative, where rounding may differ; else they are equal."""

SET_SLACK = 0.02
"""The same for the loss of an attack on a whole set, where rounding may differ: which image it visits next,
and so what it finds of each, hangs on the last bits. Only the set's value can be held against another."""

_PLACES = ("best_restart", "best_step")
_COUNTS = ("forwards", "backwards", "zero_gradients")
_SIZES = ("linf", "l2", "rmse")
_SCORES = ("adv_score", "adv_score_8bit", "adv_score_jpeg")
_OF_EXAMPLES = (*_COUNTS, *_SIZES, *_SCORES, "attack_score", "ssim", "projection_moved")
_NUMBER = re.compile(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?")


class Again:
    """The cells of a run that can be computed again, by the models that are here.

    Nothing kept is read: an example is found again by its attack, or the check would check itself.
    """

    def __init__(
        self,
        manifest: RunManifest,
        work: Work,
        entrants: Sequence[Entrant],
        parts: Mapping[str, pa.Table],
        runtime: Runtime,
    ) -> None:
        """Take the run, its plan, and the models that are those of the run."""
        runtime = replace(runtime, choices=runtime.choices or choices_of(manifest))
        self.manifest, self.work, self.parts, self.runtime = manifest, work, parts, runtime
        self.copies = Copies(runtime.choices, runtime.device)
        self.entrants = entrants
        self.records = {record.name: record for record in manifest.models}
        self.models = {entrant.label: entrant.model.to(runtime.device) for entrant in entrants}
        self.exact = _same_place(manifest, runtime)
        cells = {cell.key: cell for cell in work.cells}
        self._examples = Examples(
            lambda cell: craft(
                cell, attacked_model(cell, self.models.__getitem__), work.images, runtime, self.copies
            ),
            lambda cell: cells[cell.surrogate.cell] if cell.surrogate else cell,
            used_elsewhere(work.cells),
        )

    def possible(self, label: str) -> list[Cell]:
        """Return a model's stored cells that can be made again."""
        return [
            cell
            for cell in self.work.cells
            if cell.label == label and cell.key in self.parts and self.models.keys() >= set(cell.sources)
        ]

    def chosen(self, sample: int, seed: int, deciding: Mapping[str, str] | None = None) -> list[Cell]:
        """Return all clean cells of every model and a sample of its attacked ones.

        The first drawn is a cell of the attack that decides the minimum at the main radius, the second one of
        any other radius, and then all at the main radius come before the rest: ranks are made of them.

        Args:
            sample: attacked cells of each model.
            seed: of the draws.
            deciding: by model, the attack that decides its minimum; without it any may come first.
        """
        generator = np.random.default_rng(seed)
        chosen = []
        for entrant in self.entrants:
            mine = self.possible(entrant.label)
            attacked = [cell for cell in mine if cell.attack is not None]
            drawn = [attacked[i] for i in generator.permutation(len(attacked))]
            first = (deciding or {}).get(entrant.label)
            drawn.sort(key=lambda cell: (not self.is_main(cell), cell.attack_name != first))
            main = sum(map(self.is_main, drawn))
            if 0 < main < len(drawn):  # one of the others comes second
                drawn.insert(1, drawn.pop(main))
            kept = {cell.key for cell in drawn[:sample]}
            chosen += [*(c for c in mine if c.attack is None), *(c for c in attacked if c.key in kept)]
        return chosen

    def is_main(self, cell: Cell) -> bool:
        """Whether a cell is of the radius that models are ranked at."""
        return cell.attack is not None and math.isclose(cell.epsilon, self.manifest.main_epsilon)

    def chances(self, cells: Sequence[Cell]) -> dict[str, tuple[int, int]]:
        """Return of every model how many attacked cells at the main radius there are, and are made again."""
        again = {cell.key for cell in cells}
        found = {}
        for entrant in self.entrants:
            main = [cell for cell in self.possible(entrant.label) if self.is_main(cell)]
            if main:
                found[entrant.label] = len(main), sum(cell.key in again for cell in main)
        return found

    def cells_differ(
        self, cells: Sequence[Cell], on_cell: Callable[[Cell], None]
    ) -> Iterator[tuple[int, list[Finding]]]:
        """Make cells again; yield the number of rows of each and what differs."""
        for cell in cells:
            on_cell(cell)
            images = self.work.images_of(cell.split)
            try:
                made = run_cell(
                    cell, self.models[cell.label], images, self.runtime, self._examples.of, self.copies
                )
            except (AttackError, RunError) as error:
                yield 0, [Finding("cell", cell_name(cell), f"is stored; made again it fails: {error}")]
                continue
            yield len(made), self._rows_differ(cell, made)

    def checks_differ(self) -> list[Finding]:
        """Measure again what was measured before the attack."""
        findings = []
        for entrant in self.entrants:
            record = self.records[entrant.label]
            found = measured_checks(entrant, self.work, self.runtime)
            stored = as_checks(record.checks).get(AGREES)
            if stored is None or stored.detail != FIRST_EDITION:
                findings += _checks_differ(record, found, ("passed", "threshold", "value", "detail"))
                continue
            # What passed on fewer images must pass on those of this version too, or words would hide it.
            known = {name: c for name, c in found.items() if name in record.checks or not c.passed}
            judged = _checks_differ(record, known, ("passed",))  # bounds are held against the flags' own
            then = measured_as_first(entrant, self.work, self.runtime)
            then = {name: check for name, check in then.items() if name in record.checks}
            findings += judged or _checks_differ(record, then, ("passed", "value", "detail"))
        return findings

    def after_run(self, cells: Sequence[Cell]) -> tuple[list[Finding], list[str]]:
        """Measure models after the cells made again; return what fails, and what only the whole run tells.

        A run's last measurement is of models after all its cells. After a sample of them it can only fail.
        """
        findings, open_ones = [], []
        again = {cell.key for cell in cells}
        before = Before(
            self.work.images, self.work.suite.eot_samples, {n: r.checks for n, r in self.records.items()}
        )
        for entrant in self.entrants:
            stored = as_checks(self.records[entrant.label].checks).get(UNCHANGED)
            if stored is None or not stored.passed:
                continue
            device = self.runtime.devices[0]
            copy = self.copies.of(entrant.model, entrant.sha256)
            found = before.compare(entrant.label, entrant.model, device, copy)
            if not found.passed:
                detail = f"passed is stored, after the cells made again it fails: {found.detail}"
                findings.append(Finding("check", f"{entrant.label}, {UNCHANGED}", detail))
            elif any(cell.key not in again for cell in self.possible(entrant.label)):
                words = "after all its calls in the run (--sample 1000000 makes all cells again)"
                open_ones.append(f"{entrant.label}, {UNCHANGED}: {words}")
        return findings, open_ones

    def never_again(self, cells: Sequence[Cell]) -> list[Finding]:
        """Say which models were attacked in the run and not once here: nothing was checked by attacking."""
        attacked = {cell.label for cell in cells if cell.attack is not None}
        findings = []
        for entrant in self.entrants:
            mine = [c for c in self.manifest.cells if c.model == entrant.label and c.attack != "clean"]
            done = sum(c.key in self.parts for c in mine)
            if done and entrant.label not in attacked:
                detail = (
                    f"none of its {done} attacked cells could be made again: suite, images and models as "
                    "they are here give cells of other keys (another iqa-harness or other images)"
                )
                findings.append(Finding("cell", entrant.label, detail))
        return findings

    def _rows_differ(self, cell: Cell, made: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """Compare the stored rows with the same rows made again, every column. Missing ones are known."""
        rows = {
            (row["objective"], row["steps"], row["position"]): row for row in self.parts[cell.key].to_pylist()
        }
        low, high = range_of(self.records[cell.label].card)
        seen_low, seen_high = (0.0, 1.0) if cell.ensemble else range_of(self.records[cell.sources[0]].card)
        loose = cell.attack is not None and cell.attack.whole_set and not self.exact
        left_out = {*UNPLANNED, *(() if self.exact else _PLACES), *(_OF_EXAMPLES if loose else ())}
        names = [column.name for column in ROW.columns if column.name not in left_out]
        findings = []
        for new in made:
            old = rows.get((new["objective"], new["steps"], new["position"]))
            if old is None:
                continue
            for name in names:
                if loose and name == "loss" and within(old[name], new[name], SET_SLACK):
                    continue
                span = seen_high - seen_low if name == "attack_score" else high - low
                if not self._agrees(name, old[name], new[name], span):
                    detail = f"{name}: {shown(old[name])} is stored, made again it is {shown(new[name])}"
                    findings.append(Finding("row", f"{cell.label}, {row_name(new)}", detail))
        return findings

    def _agrees(self, name: str, old: Any, new: Any, span: float) -> bool:
        if name in _COUNTS and not self.exact:
            return bool(abs(old - new) <= COUNT_SLACK * max(new, 10))
        if not isinstance(new, float):
            return bool(old == new)
        if name == "clean_score":
            bound = SCORE_SLACK * span
        elif name in _SCORES or name == "attack_score":
            bound = AGAIN_SLACK * span
        elif name in _SIZES:
            bound = 1e-7 + SIZE_SLACK * new
        elif name in ("epsilon", "step_size", "mos"):
            bound = 0.0
        else:
            # A loss of pairs rises by 1 / tau with a score.
            bound = AGAIN_SLACK * max(1.0, abs(new)) * (10 if name == "loss" else 1)
        return within(old, new, bound)


def _checks_differ(record: ModelRecord, found: Mapping[str, Check], parts: Sequence[str]) -> list[Finding]:
    """Compare parts of the checks of a manifest with the same checks measured again."""
    findings = []
    # What was measured after the run is of a model that had been attacked.
    for name in [*found, *(n for n in record.checks if n not in (*found, UNCHANGED))]:
        stored = record.checks.get(name)
        if name not in found or stored is None:
            detail = f"{shown(stored)} is stored, it is {'' if name in found else 'not '}measured"
            findings.append(Finding("check", f"{record.name}, {name}", detail))
            continue
        old, new = stored, found[name]._asdict()
        for part in parts:
            a, b = old.get(part), new.get(part)
            if part == "detail":  # its numbers are of the value's kind
                same = _NUMBER.sub("#", str(a)) == _NUMBER.sub("#", str(b))
            elif part == "value" and isinstance(a, int | float) and isinstance(b, int | float):
                same = within(float(a), float(b), CHECK_SLACK * max(1.0, abs(b)))
            else:
                same = a == b
            if not same:
                detail = f"{part}: {shown(a)} is stored, measured again it is {shown(b)}"
                findings.append(Finding("check", f"{record.name}, {name}", detail))
                break
    return findings


def _same_place(manifest: RunManifest, runtime: Runtime) -> bool:
    """Return whether rounding here is that of the run: same versions, device, threads and chunks."""
    here, there = collect_provenance(runtime.device, torch.get_num_threads()), manifest.provenance
    tuning = manifest.tuning
    return (
        (here.packages, here.platform, here.device) == (there.packages, there.platform, there.device)
        and {there.threads, *(worker.threads for worker in manifest.workers)} == {here.threads}
        and not runtime.chunk_by_memory
        and (tuning.get("chunk"), tuning.get("max_states", 8 * runtime.at_most))
        == (runtime.at_most, 8 * runtime.at_most)
        and "reduced_chunks" not in tuning
    )


def kept_differ(again: Again, store: ResultStore) -> Iterator[tuple[int, list[Finding]]]:
    """Score all kept images of the main radius again; yield the number of rows of a cell and what differs.

    Last cell and image first, each alone, before a model is shown anything else: one that remembers what it
    was shown in the run has another past here.
    """
    for entrant in again.entrants:
        main = [c for c in again.possible(entrant.label) if again.is_main(c) and c.surrogate is None]
        for cell in reversed(main):
            images = again.work.images
            if not store.has_examples(cell.key):
                continue
            try:
                result = decode(store.read_examples(cell.key), cell, images, again.runtime.device)
            except OtherVersion:
                continue
            except BadPart as error:
                yield 0, [Finding("part", cell_name(cell), f"its kept images are damaged: {error}")]
                continue
            scorer = Scorer(again.models[cell.label], seed=cell.seed, draws=cell.draws)
            scores: dict[int, float] = {}
            try:
                for found in reversed(result.found):
                    name = images.records[cell.first + found.image].image_id
                    if id(found.example) not in scores:
                        (scores[id(found.example)],) = scorer.of([found.example.pixels], [name])
            except AttackError as error:
                yield 0, [Finding("cell", cell.label, f"its kept images cannot be scored: {error}")]
                continue
            places = {
                (found.objective, found.steps, cell.first + found.image): scores[id(found.example)]
                for found in result.found
            }
            low, high = again.models[cell.label].spec.score_range
            differing = []
            for row in again.parts[cell.key].to_pylist():
                now = places.get((row["objective"], row["steps"], row["position"]))
                moved = now is None or row["projection_moved"] > BUDGET_SLACK
                if not moved and not within(row["adv_score"], now, AGAIN_SLACK * (high - low)):
                    detail = (
                        f"adv_score: {shown(row['adv_score'])} is stored, the kept image has {shown(now)} "
                        "where no other was scored before it"
                    )
                    differing.append(Finding("row", f"{cell.label}, {row_name(row)}", detail))
            yield len(places), differing
