"""A run as it was read and as reports see it: the manifest and its values, looked up by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from iqa_reports.errors import InconsistentRun
from iqa_reports.inputs.ranks import Rank, ranks
from iqa_results import (
    INTERVAL,
    Certificate,
    Estimate,
    Flag,
    Measure,
    Power,
    Reach,
    RunManifest,
)

Metric = Literal["srocc", "plcc"]
WorstCase = Literal["suite_min", "composed", "closed_loop"]

METRICS: tuple[Metric, ...] = ("srocc", "plcc")
WORST_CASES: tuple[WorstCase, ...] = ("suite_min", "composed")
"""Those of every run; what else a run has is in `StoredRun.cases`."""


class ModelCost(NamedTuple):
    """What attacking one image of a model took in all cells of a run together."""

    gradients: float
    """Model evaluations with a gradient."""
    seconds: float
    """Wall time."""


class Optimality(NamedTuple):
    """How near an attack on a model, all its objectives together, comes to the best for as many gradients."""

    model: str
    attack: str
    fall: float | None
    """By the fall of SROCC, in [0, 1]; None if undefined."""
    move: float | None
    """By the mean change of an image's score, in [0, 1]; None if undefined."""
    gradients: float
    """What the attack cost an image; a score without its gradient is a third of one."""


class Member(NamedTuple):
    """An attack with one of its objectives."""

    attack: str
    objective: str

    @property
    def label(self) -> str:
        """The member as the suite writes it."""
        return f"{self.attack}/{self.objective}"

    @property
    def family(self) -> str:
        """Name of the attack in the suite."""
        return self.attack.partition(":")[0]

    @property
    def surrogate(self) -> str:
        """Model a transfer's examples were found on, '' for an attack on the model itself."""
        return self.attack.partition(":")[2]


class Triptych(NamedTuple):
    """One image as it was, as it was attacked, and the difference; each a ``data:`` address of a picture."""

    model: str
    image_id: str
    attack: str
    """Attack and objective that found it."""
    original: str
    attacked: str
    difference: str
    """Twenty times the change, on mid-grey."""
    mos: float
    before: float
    """Score of the original."""
    after: float
    """Score of the attacked image."""
    psnr: float
    """In dB."""
    ssim: float | None
    """None if it was not computed."""
    distortion: str = ""
    """Type of the image's distortion, '' if unknown."""
    large: bool = False
    """Whether the pictures are large enough to be looked at one by one."""
    other_score: float | None = None
    """Score of the attacked picture where it is not the stored one: found again, an attack may take another
    path."""


@dataclass(frozen=True)
class StoredRun:
    """A run: its manifest, tables, and what else the harness knows of it.

    Raises:
        InconsistentRun: the estimates are of models the manifest does not name, or of several norms.
    """

    manifest: RunManifest
    estimates: tuple[Estimate, ...]
    intervals: pa.Table
    """INTERVAL_SCHEMA: a row an image, so it stays a table."""
    flags: tuple[Flag, ...] = ()
    costs: Mapping[str, ModelCost] = field(default_factory=dict)
    """By model; empty if not recorded."""
    triptychs: tuple[Triptych, ...] = ()
    origin: str = ""
    """Store the run was read from, for provenance."""
    optimalities: tuple[Optimality, ...] = ()
    """A row a (model, attack) at the main radius; empty if not recorded."""
    radii: tuple[Measure, ...] = ()
    """What attacks found that look for the smallest radius, and what they cost."""
    power: tuple[Power, ...] = ()
    """What attacks found of plants; empty without a power test."""
    certificates: tuple[Certificate, ...] = ()
    """Floors under the correlations, in the run's norm; empty where it was not certified."""
    compared: bool = True
    """Whether all models were compared with each other; those of several runs were not."""

    def __post_init__(self) -> None:
        strangers = {e.model for e in self.estimates} - {m.name for m in self.manifest.models}
        if strangers:
            raise InconsistentRun(f"the table has models the manifest does not name: {sorted(strangers)}")
        norms = sorted({e.norm for e in self.estimates if e.row != "clean"})
        if len(norms) > 1:
            raise InconsistentRun(f"a report shows one norm, the table has {norms}")

    @property
    def norm(self) -> str:
        """Norm of the run's balls; '' if no attacked value is there."""
        return next((e.norm for e in self.estimates if e.row != "clean"), "")

    @property
    def cases(self) -> tuple[WorstCase, ...]:
        """The worst cases of the run, from the highest down by what they are."""
        closed: tuple[WorstCase, ...] = ("closed_loop",)
        return (*WORST_CASES, *(closed if any(e.row == "closed_loop" for e in self.estimates) else ()))

    def certified(self, model: str, epsilon: float, metric: Metric) -> Certificate | None:
        """Return what is known of a floor, None if nobody looked, or looked at other weights."""
        sha256 = next((m.sha256 for m in self.manifest.models if m.name == model), None)
        found = (
            c
            for c in self.certificates
            if (c.model, c.model_sha256, c.metric) == (model, sha256, metric) and same(c.epsilon, epsilon)
        )
        return next(found, None)

    def clean(self, model: str, metric: Metric) -> Estimate | None:
        """Return the value without attack, None if the table has none."""
        return self._only(e for e in self._of(model, metric) if e.row == "clean")

    def worst(self, model: str, case: WorstCase, epsilon: float, metric: Metric) -> Estimate | None:
        """Return a worst case at full strength, None if the table has none."""
        return self._only(
            e for e in self._of(model, metric) if e.row == case and e.final and same(e.epsilon, epsilon)
        )

    def attacked(self, model: str, member: Member, epsilon: float, metric: Metric) -> Estimate | None:
        """Return the value under one attack and objective at full strength, None if the table has none."""
        return self._only(
            e
            for e in self._of(model, metric)
            if e.row == "attack"
            and e.final
            and (e.attack, e.objective) == member
            and same(e.epsilon, epsilon)
        )

    def epsilons(self) -> list[float]:
        """Return the radii of the plan and the table, rising, the main one always among them."""
        # The largest radius of a search for the smallest one is none of the worst cases.
        apart = {"clean", *(measure.attack for measure in self.radii)}
        planned = {c.epsilon for c in self.manifest.cells if c.attack not in apart}
        found = {e.epsilon for e in self.estimates if e.row != "clean"}
        distinct: list[float] = []
        for epsilon in sorted(planned | found | {self.manifest.main_epsilon}):
            if not distinct or not same(distinct[-1], epsilon):
                distinct.append(epsilon)
        return distinct

    def members(self, epsilon: float) -> list[Member]:
        """Return the members of the suite's minimum, then the other attacks the table has at this radius.

        Without examples made against a model before it was defended: see `unaware`.
        """
        named = [Member(*name.partition("/")[::2]) for name in self.manifest.suite_min]
        found = [
            Member(e.attack, e.objective)
            for e in self.estimates
            if e.row == "attack" and e.final and same(e.epsilon, epsilon)
        ]
        own = {m.attack for m in found if not m.surrogate}
        return list(dict.fromkeys(named + [m for m in found if m.family == m.attack or m.family not in own]))

    def unaware(self, model: str, epsilon: float, metric: Metric) -> list[Estimate]:
        """Return a defended model's values on examples made against the undefended one.

        Of the members of the suite's minimum; empty if the model defends none of the run.
        """
        bare = next(m.bare for m in self.manifest.models if m.name == model)
        return self._of_members(model, epsilon, metric, f":{bare}") if bare is not None else []

    def adaptive(self, model: str, epsilon: float, metric: Metric) -> list[Estimate]:
        """Return a model's values under the members of the suite's minimum that attack itself."""
        return self._of_members(model, epsilon, metric, "")

    def _of_members(self, model: str, epsilon: float, metric: Metric, source: str) -> list[Estimate]:
        named = [Member(*name.partition("/")[::2]) for name in self.manifest.suite_min]
        found = [
            self.attacked(model, member._replace(attack=member.attack + source), epsilon, metric)
            for member in named
        ]
        return [estimate for estimate in found if estimate is not None]

    def ranking(self) -> list[tuple[Rank | None, str]]:
        """Return (rank, model), best first: by suite_min SROCC at the main radius; equal ones share a place.

        Suspect models come after all others, whatever their value: a gradient that is masked looks like
        robustness. A model whose value is undefined or missing has no rank and stands last, in the
        manifest's order. So does one whose numbers were judged invalid or incomplete, or, where nothing was
        judged, one that failed a check made before the attack.
        """
        values: dict[str, float] = {}
        ties: dict[str, tuple[str, ...]] = {}
        for name, found in self._valued().items():
            if self.may_rank(name) and found.value is not None:
                values[name] = found.value
                if found.ties_with is not None:
                    ties[name] = found.ties
        whole = self.compared and ties.keys() == values.keys()
        ranked = ranks(values, ties if whole else None, [name for name in values if self.is_suspect(name)])
        named: list[tuple[Rank | None, str]] = [(rank, name) for name, rank in ranked.items()]
        return named + [(None, m.name) for m in self.manifest.models if m.name not in values]

    def family(self) -> int | None:
        """Return how many models were compared in pairs, all at once; None if none were."""
        found = self._valued().values()
        return len(found) if self.compared and any(e.ties_with is not None for e in found) else None

    def _valued(self) -> dict[str, Estimate]:
        """Return by model what it is ranked by, where that has a value."""
        named = [m.name for m in self.manifest.models]
        found = {n: self.worst(n, "suite_min", self.manifest.main_epsilon, "srocc") for n in named}
        return {name: e for name, e in found.items() if e is not None and e.value is not None}

    def may_rank(self, model: str) -> bool:
        """Whether a model's worst case may stand in the order: by the verdict, else by the checks."""
        verdict = self.verdict(model)
        if verdict:
            return verdict not in ("invalid", "incomplete")
        checks = next(m.checks for m in self.manifest.models if m.name == model)
        return all(check["passed"] for check in checks.values())

    def is_suspect(self, model: str) -> bool:
        """Whether a stronger attack probably exists than the value of a model is of."""
        return self.verdict(model) == "suspect"

    def verdict(self, model: str) -> str:
        """Return sound, suspect, incomplete or invalid; '' if the numbers were not judged."""
        return next((e.verdict for e in self.estimates if e.model == model and e.verdict), "")

    def flags_of(self, model: str) -> list[Flag]:
        """Return a model's flags, raised ones first, those not measured last."""
        own = [flag for flag in self.flags if flag.model == model]
        return sorted(own, key=lambda flag: (not flag.raised, not flag.measured))

    def radius_lines(self, model: str) -> dict[str, list[Estimate]]:
        """Return SROCC at rising radii at full strength: worst cases and members of the suite's minimum.

        By label; a line needs two radii.
        """
        lines: dict[str, list[Estimate]] = {}
        for e in self._of(model, "srocc"):
            label = Member(e.attack, e.objective).label if e.row == "attack" else e.row
            if e.final and label in (*WORST_CASES, *self.manifest.suite_min):
                lines.setdefault(label, []).append(e)
        rising = {label: sorted(points, key=lambda e: e.epsilon) for label, points in lines.items()}
        return {label: points for label, points in rising.items() if len(points) > 1}

    def step_lines(self, model: str) -> dict[str, list[Estimate]]:
        """Return SROCC at rising steps at the main radius.

        By objective of the manifest's `step_sweep`, then by worst case that has prefixes.
        """
        rows = [e for e in self._of(model, "srocc") if same(e.epsilon, self.manifest.main_epsilon)]
        swept = [e for e in rows if e.row == "attack" and e.attack == self.manifest.step_sweep]
        lines: dict[str, list[Estimate]] = {}
        for e in swept:
            lines.setdefault(e.objective, []).append(e)
        for case in WORST_CASES:
            points = [e for e in rows if e.row == case]
            if any(not e.final for e in points):
                lines[case] = points
        for label, points in lines.items():
            points.sort(key=lambda e: e.steps)
            if len({e.steps for e in points}) < len(points):
                raise InconsistentRun(f"the step sweep of {label} has two values at one number of steps")
        return lines

    def _of(self, model: str, metric: Metric) -> list[Estimate]:
        return [e for e in self.estimates if e.model == model and e.metric == metric]

    @staticmethod
    def _only(found: Iterable[Estimate]) -> Estimate | None:
        rows = list(found)
        if len(rows) > 1:
            first = rows[0]
            raise InconsistentRun(
                f"the table has {len(rows)} rows for {first.model}, {first.row}, "
                f"{first.attack}/{first.objective}, epsilon {first.epsilon:g}, {first.metric}; expected one"
            )
        return rows[0] if rows else None


def reach_of(intervals: pa.Table, model: str, epsilon: float) -> list[Reach]:
    """Return what can be reached on a model's images at a radius, by rising MOS.

    Raises:
        InconsistentRun: the intervals have other columns than INTERVAL_SCHEMA.
    """
    if not intervals.schema.equals(INTERVAL.arrow):
        raise InconsistentRun("the interval table has other columns than this version of iqa-harness writes")
    # A column at a time: a run of many models and images has a million rows here.
    radii = [found for found in intervals.column("epsilon").unique().to_pylist() if same(found, epsilon)]
    wanted = pc.and_(
        pc.equal(intervals.column("model"), model),
        pc.is_in(intervals.column("epsilon"), pa.array(radii, pa.float64())),
    )
    return sorted(INTERVAL.rows(intervals.filter(wanted)), key=lambda r: (r.mos, r.image_id))


def same(first: float, second: float) -> bool:
    """Whether two radii are one: 2/255 may have been written 0.00784313725490196."""
    return math.isclose(first, second, rel_tol=1e-9)
