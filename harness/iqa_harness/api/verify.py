"""Is a run what it says, and is it to be believed?"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iqa_harness.api.inputs import compute_as, entrants_of_run, images_of_run
from iqa_harness.api.opening import STORE, opened
from iqa_harness.api.reading import teller
from iqa_harness.cells.selection import recorded_suite
from iqa_harness.entrants.naming import Model, run_plugins
from iqa_harness.errors import RunError
from iqa_harness.evidence.flags import FLAGS, Flag, verdict_of
from iqa_harness.machine.devices import own_threads
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.ledger import refreshed
from iqa_harness.verification.finding import Finding, cell_name
from iqa_harness.verification.manifest import not_as_shipped
from iqa_harness.verification.run import SAMPLE, Verified, verify_run
from iqa_harness.verification.tables import TABLES
from iqa_models.registry import did_you_mean
from iqa_results import ResultStore, RunManifest
from iqa_suites import load_suite


@dataclass(frozen=True)
class Judged:
    """A model's verdict and the flags it rests on."""

    model: str
    verdict: str
    """sound, suspect, incomplete, invalid, `not judged`, or `contradicted`: sound by rows that a verification
    does not confirm."""
    flags: tuple[Flag, ...]

    @property
    def raised(self) -> list[Flag]:
        """The flags that are raised."""
        return [flag for flag in self.flags if flag.raised]

    def lines(self) -> list[str]:
        """Say the verdict, and of every raised flag what was measured."""
        measured = sum(flag.measured for flag in self.flags)
        lines = [f"{self.model}: {self.verdict} ({measured} of {len(self.flags)} flags measured)"]
        for flag in self.raised:
            value = "not measurable" if flag.value is None else f"{flag.value:.4g}"
            lines.append(f"  {flag.flag} ({flag.severity}): {value}, bound {flag.threshold:g}; {flag.detail}")
        return lines


@dataclass(frozen=True)
class Verification:
    """What a verification saw."""

    verified: Verified
    judged: tuple[Judged, ...]
    """One a model; none if the tables could not be made from the rows."""
    seed: int = 0
    """Seed that the cells made again were drawn by."""

    @property
    def findings(self) -> list[Finding]:
        """What differs, most important first."""
        return self.verified.findings

    def models_of(self, findings: Iterable[Finding]) -> dict[str, int]:
        """Return how many of some findings are of each model, by those that have any."""
        places = [finding.where for finding in findings]
        tables = ("", *(f"{name}, " for name in TABLES))
        counts = {
            model: sum(
                place == model or place.startswith(tuple(f"{t}{model}, " for t in tables)) for place in places
            )
            for model in (each.model for each in self.judged)
        }
        return {model: count for model, count in counts.items() if count}

    @property
    def sound(self) -> bool:
        """Whether nothing differs and every model's verdict is sound."""
        return bool(self.judged) and not self.findings and all(j.verdict == "sound" for j in self.judged)

    def summary(self) -> dict[str, Any]:
        """Return what a program wants to know."""
        seen = self.verified
        return {
            "sound": self.sound, "findings": seen.findings, "rows": seen.rows, "cells": seen.cells,
            "rows_again": seen.rows_again, "checks": seen.checks, "not_verified": seen.not_verified,
            "verdicts": self.judged,
        }  # fmt: skip


@own_threads
def verify(
    run: str,
    *,
    store: str | Path | ResultStore = STORE,
    models: Model | Mapping[str, Any] | Iterable[Model] = (),
    sample: int = SAMPLE,
    seed: int | None = None,
    suite: str | Path | None = None,
    data: Any = None,
    device: str = "cpu",
    threads: int | None = None,
    cache: str | Path | None = None,
    backbone_weights: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    progress: bool = True,
) -> Verification:  # one argument an option of the command
    """Verify a run: manifest, rows and tables against each other; checks, scores, a sample of attacks again.

    Args:
        run: its name in the store.
        store: folder or URL of results.
        models: where models of the run are now, by the run's names; the others are made as the manifest says.
        sample: attacked cells of each model to make again, beside its checks and clean scores; 0 opens no
            model and no image.
        seed: of the choice of those cells; drawn and told in the result if left out, so that nobody can know
            beforehand which cells are left alone.
        suite: what the run should be of, a name or a file; a suite that ships is known by its name.
        data: where the images are now, a name or an image set; as the suite says if left out.
        device: torch device.
        threads: threads within one operation; those of most of the run's cells if left out, at most one a
            core. With others sums are rounded otherwise, and an attack may take another path.
        cache: folder of the embedded data.
        backbone_weights: file for the trunks of models created by name, if it has moved.
        plugins: Python files of yours that register models.
        progress: say on standard error which cell is made again.

    Raises:
        RunError: a model that cannot be made again or is not of the run.
    """
    results = opened(store)
    manifest = refreshed(results, results.read_manifest(run))
    entrants, images = [], None
    if sample:
        plugged = bool(run_plugins(plugins))
        entrants = entrants_of_run(
            manifest, models, plugged=plugged, backbone_weights=backbone_weights, same=False
        )
        images = images_of_run(manifest, data, cache, same=False)
    tell = teller(progress)
    seed = secrets.randbelow(2**32) if seed is None else seed
    if sample:
        compute_as(manifest, device, threads)
    found = verify_run(
        results, manifest, entrants, images, sample=sample, seed=seed, runtime=Runtime(device=device),
        on_cell=lambda cell: tell(f"again: {cell_name(cell)}"),
    )  # fmt: skip
    if suite is not None:
        other = not_as_shipped(recorded_suite(manifest), load_suite(str(suite)).suite)
        found.findings[:0] = other
    verdicts = judged(found.tables.flags.to_pylist(), manifest) if found.tables is not None else ()
    if found.findings:
        verdicts = tuple(replace(j, verdict="contradicted") if j.verdict == "sound" else j for j in verdicts)
    return Verification(found, verdicts, seed)


def judged(flags: Iterable[Mapping[str, Any]], manifest: RunManifest) -> tuple[Judged, ...]:
    """Return the verdict of every model of a run from its rows of flags."""
    rows = list(flags)
    found = []
    for record in manifest.models:
        mine = tuple(
            Flag(**{name: row[name] for name in Flag._fields}) for row in rows if row["model"] == record.name
        )
        found.append(Judged(record.name, str(verdict_of(list(mine))[0]) if mine else "not judged", mine))
    return tuple(found)


def explain(flag: str) -> str:
    """Say what a flag means, how grave it is and when it is raised.

    Raises:
        RunError: no such flag; the message names the nearest one.
    """
    if flag not in FLAGS:
        raise RunError(f"no flag {flag!r}{did_you_mean(flag, FLAGS)}; there are {', '.join(FLAGS)}")
    kind = FLAGS[flag]
    return f"{flag}: {kind.severity}, raised {kind.raised} {kind.threshold:g}\n\n{kind.meaning}"
