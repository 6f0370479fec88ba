"""A manifest against its suite, its images, its models and its cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from iqa_harness.cells.plan import Cell, Work
from iqa_harness.entrants.defended import bare_label, defences_of
from iqa_harness.entrants.entrant import UNTRAINED, Entrant
from iqa_harness.evidence.check import as_checks
from iqa_harness.evidence.flags import FLAGS
from iqa_harness.evidence.judgement import BY_CHECK
from iqa_harness.running.ledger import COST_COLUMNS, report_of
from iqa_harness.running.manifest import notes_of
from iqa_harness.verification.finding import Finding, cell_name, place_of, within
from iqa_results import ModelRecord, RunManifest
from iqa_suites import Suite, list_suites, load_suite


def suite_differs(manifest: RunManifest, suite: Suite) -> list[Finding]:
    """Compare what a manifest says of its suite with the suite's own text."""
    said = {
        "suite": (manifest.suite, suite.name),
        "suite_sha256": (manifest.suite_sha256, suite.sha256),
        "main_epsilon": (manifest.main_epsilon, suite.main_epsilon),
        "suite_min": (manifest.suite_min, suite.suite_min),
        "step_sweep": (manifest.step_sweep, suite.step_sweep),
        "seed": (manifest.seed, suite.seed),
        "data.split": (manifest.data.split, suite.data.split),
    }
    if manifest.data.selection is None and suite.data.images is not None:
        said["data.images"] = (manifest.data.images, suite.data.images)
    return _differing(said, "the suite's text says")


def not_as_shipped(suite: Suite, wanted: Suite | None = None) -> list[Finding]:
    """Say whether a suite is another one than that of its name, on whatever images.

    Args:
        suite: as the run's text gives it.
        wanted: what it should be; without one, the suite of its name that ships or that a package offers.
    """
    if wanted is None and suite.name not in list_suites():
        return []
    of_name = wanted or load_suite(suite.name).suite
    # `--data` moves a suite to all images of a set's split: nothing else of it may be another.
    moved = suite.data.images is None and suite.data.split == of_name.data.split
    same = of_name.model_copy(update={"data": suite.data}) if moved else of_name
    if suite.sha256 == same.sha256:
        return []
    detail = (
        f"{suite.name} with hash {suite.sha256[:12]} was run, {of_name.name} as it is here has "
        f"{of_name.sha256[:12]}: other attacks, members, radii or images (or another iqa-harness)"
    )
    return [Finding("manifest", "suite", detail)]


def data_differs(manifest: RunManifest, work: Work) -> list[Finding]:
    """Compare what a manifest says of its images with the images, which have its fingerprint."""
    card, record = work.images.card, manifest.data
    said: dict[str, tuple[Any, Any]] = {
        "data.name": (record.name, card.name),
        "data.images": (record.images, len(work.images)),
        "data.label": (record.label, card.label),
        "data.chosen": (record.chosen, work.chosen),
        "data.chosen_from": (record.chosen_from, work.chosen_from),
    }
    true: dict[str, Any] = dict(card.as_json())
    said |= {f"data.card.{n}": (record.card.get(n), true.get(n)) for n in {**true, **record.card}}
    findings = _differing(said, "the images say")
    for note in notes_of(work):
        if note not in manifest.notes:
            findings.append(Finding("manifest", "notes", f"has no {note!r}"))
    return findings


def models_differ(manifest: RunManifest, entrants: Sequence[Entrant]) -> list[Finding]:
    """Compare the models that are here with those of the run."""
    findings = []
    stored = {record.name: record for record in manifest.models}
    for entrant in entrants:
        record = stored.get(entrant.label)
        if record is None:
            findings.append(Finding("model", entrant.label, "is no model of the run"))
            continue
        if record.sha256 != entrant.sha256:
            detail = f"sha256 {record.sha256[:12]} was attacked, {entrant.sha256[:12]} was made again"
            findings.append(Finding("model", entrant.label, detail))
            continue  # its card is in the hash
        bare = bare_label(entrant, entrants)
        if record.bare != bare and (bare is not None or not defences_of(entrant.model)):
            detail = f"is said to defend {record.bare}, it defends {bare}"
            findings.append(Finding("model", entrant.label, detail))
        card, kept = _own_card(entrant.model.spec.model_dump(mode="json")), _own_card(record.card)
        for name in [*card, *(n for n in kept if n not in card)]:
            if kept.get(name) != card.get(name):
                detail = f"card.{name}: {kept.get(name)} is stored, the model's is {card.get(name)}"
                findings.append(Finding("model", entrant.label, detail))
    return findings


def _own_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card without the note on how the model was made, which is not in its hash either."""
    notes = card.get("notes")
    own = [note for note in notes if note != UNTRAINED] if isinstance(notes, list | tuple) else notes
    return {**card, "notes": own}


def checks_contradict(record: ModelRecord) -> list[Finding]:
    """Say which stored checks passed against their own value, or were held against a laxer bound."""
    findings, known = [], as_checks(record.checks)
    for name, flag in BY_CHECK.items():
        if name not in known:
            continue
        value, bound, passed, _ = known[name]
        if not bound <= FLAGS[flag].threshold:
            detail = f"held against {bound}, the bound of {flag} is {FLAGS[flag].threshold:g}"
        elif value is not None and passed != (value <= bound):
            detail = f"passed is {passed} with a value of {value:g}, allowed {bound:g}"
        else:
            continue
        findings.append(Finding("check", f"{record.name}, {name}", detail))
    return findings


def cells_differ(manifest: RunManifest, planned: Sequence[Cell], *, keyed: bool) -> list[Finding]:
    """Compare a manifest's cells with the suite's plan.

    Args:
        manifest: the run's.
        planned: the cells as planned.
        keyed: whether their keys are of the run's images, and so must be the manifest's.
    """
    stored = {place_of(record): record for record in manifest.cells}
    wanted = {place_of(cell): cell for cell in planned}
    findings = []
    for what, count in (
        *(("place", n) for n in Counter(map(place_of, manifest.cells)).values()),
        *(("key", n) for n in Counter(c.key for c in manifest.cells).values()),
    ):
        if count > 1:
            findings.append(Finding("manifest", "cells", f"{count} cells have one {what}"))
    for place, cell in wanted.items():
        record = stored.get(place)
        if record is None:
            findings.append(Finding("manifest", "cells", f"{cell_name(cell)}: is planned and not listed"))
        elif record.count != cell.count:
            detail = f"{cell_name(cell)}: {record.count} images are stored, the plan says {cell.count}"
            findings.append(Finding("manifest", "cells", detail))
    for place, record in stored.items():
        if place not in wanted:
            findings.append(Finding("manifest", "cells", f"{cell_name(record)}: is not in the suite's plan"))
    if keyed:
        shared = [place for place in wanted if place in stored]
        other = Counter(place[0] for place in shared if wanted[place].key != stored[place].key)
        findings += [
            Finding(
                "manifest", "cells",
                f"{model}: {count} of its {sum(place[0] == model for place in shared)} cells have other keys "
                "than suite, images and models give (another iqa-harness made them, or they were edited)",
            )
            for model, count in other.items()
        ]  # fmt: skip
    return findings


def costs_differ(manifest: RunManifest, parts: Mapping[str, pa.Table]) -> list[Finding]:
    """Compare state and cost of a run, its models and its cells with the stored parts."""
    findings = []
    for record in manifest.cells:
        part = parts.get(record.key)
        if part is not None:
            rows = part.filter(pc.field("final")).select(COST_COLUMNS).to_pylist()
            report = report_of(record.key, rows, "done")
            names = ("forwards", "backwards", "seconds", "device", "harness")
            said = {name: (getattr(record, name), getattr(report, name)) for name in names}
            found = _differing(said, "its rows give")
            findings += [
                Finding("manifest", f"cells, {cell_name(record)}", f"{f.where}: {f.detail}") for f in found
            ]
    done = [record for record in manifest.cells if record.status == "done"]
    said = {}
    for name in ("forwards", "backwards", "seconds"):
        said[name] = (getattr(manifest, name), sum(getattr(c, name) for c in done))
        for model in manifest.models:
            mine = sum(getattr(c, name) for c in done if c.model == model.name)
            said[f"models.{model.name}.{name}"] = (getattr(model, name), mine)
    if (manifest.status == "complete") != (len(done) == len(manifest.cells)):
        detail = f"{manifest.status} with {len(done)} of {len(manifest.cells)} cells done"
        findings.append(Finding("manifest", "status", detail))
    return findings + _differing(said, "its cells give")


def _differing(said: Mapping[str, tuple[Any, Any]], who: str) -> list[Finding]:
    """Return a finding for every name whose stored value is not the other one."""
    return [
        Finding("manifest", name, f"{stored} is stored, {who} {other}")
        for name, (stored, other) in said.items()
        # Sums of seconds: not in the order they were added in.
        if not within(stored, other, 1e-9 * abs(other) if isinstance(other, float) else 0)
    ]
