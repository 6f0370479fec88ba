"""A suite built from a run: the members that lowered suite_min most for the gradients they cost.

Greedy: of all attacks on the model itself, with each objective and at each number of steps that a shorter run
would give as well, the one with the largest further fall of the models' mean suite_min a gradient is taken,
until the budget is spent or the fall is too small to count; what later members made needless is dropped.
How much of the run's own fall such a suite reaches is judged on a model that it was not chosen on: each in
turn is left out, the suite is built from the others, and its members are looked up for the one left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from iqa_attacks import PGD, Attack, objectives_with_settings
from iqa_errors.toml_text import read_toml
from iqa_harness.cells.estimate import expected_work
from iqa_harness.errors import RunError
from iqa_harness.measures.optimality import gradients_of
from iqa_results import Estimate, RunManifest
from iqa_suites import LoadedSuite, Suite, parse_suite


class Member(NamedTuple):
    """An attack of the run's suite with one objective and a number of steps."""

    attack: str
    objective: str
    steps: int


class Chosen(NamedTuple):
    """A member of the built suite, with what the suite amounts to up to it."""

    member: str
    """As the built suite names it, ATTACK/OBJECTIVE."""
    gradients: float
    """Expected cost of an image with it and those before it."""
    fall: float
    """Mean fall of SROCC over the models, clean less suite_min."""


class HeldOut(NamedTuple):
    """A suite built from all other models, tried on one."""

    model: str
    gradients: float
    """Expected cost of an image."""
    reached: float
    """Fall of SROCC of this model."""
    fall: float
    """That of the whole run's suite_min."""

    @property
    def share(self) -> float | None:
        """What is reached of the run's fall; None where that is none."""
        return self.reached / self.fall if self.fall > 0 else None


class BuiltSuite(NamedTuple):
    """A suite built from a run, and how good it is."""

    suite: LoadedSuite
    members: tuple[Chosen, ...]
    """In the order they were chosen."""
    held_out: tuple[HeldOut, ...]
    """A model each; empty where the run has only one."""
    whole: float
    """What the run's suite_min fell by, the mean over its models."""
    whole_gradients: float
    """Expected cost of an image of all that was chosen from."""

    @property
    def gradients(self) -> float:
        """Expected cost of an image."""
        return self.members[-1].gradients

    @property
    def share(self) -> float | None:
        """Mean share of the run's fall on models that were left out; None without any."""
        shares = [each.share for each in self.held_out if each.share is not None]
        return math.fsum(shares) / len(shares) if shares else None


class _Measured(NamedTuple):
    """What a run says of the members there are."""

    suite: Suite
    values: Mapping[Member, Mapping[str, float]]
    """SROCC by model under each member."""
    clean: Mapping[str, float]
    whole: Mapping[str, float]
    """The run's suite_min."""

    def fall(self, members: Iterable[Member], model: str) -> float:
        """Return how far a model's suite_min over some members lies below its clean value, at least 0."""
        return max(0.0, self.clean[model] - min((self.values[m][model] for m in members), default=math.inf))

    def mean_fall(self, members: Iterable[Member], models: Sequence[str]) -> float:
        """Return the mean of that over some models."""
        members = tuple(members)
        return math.fsum(self.fall(members, model) for model in models) / len(models)

    def cost(self, members: Iterable[Member]) -> float:
        """Return what members cost an image, in gradients; those of one attack and length share theirs."""
        together: dict[tuple[str, int], list[str]] = {}
        for each in members:
            together.setdefault((each.attack, each.steps), []).append(each.objective)
        return math.fsum(self._cost(*key, objectives) for key, objectives in together.items())

    def _cost(self, name: str, steps: int, objectives: Sequence[str]) -> float:
        made = _attack(self.suite, name)
        return gradients_of(*expected_work(made, objectives=len(objectives), steps=steps))


def build_from(
    manifest: RunManifest, table: Sequence[Estimate], *, name: str, budget: float, min_gain: float
) -> BuiltSuite:
    """Build a suite from a run's table.

    Args:
        manifest: the run's, with its suite's text.
        table: its rows.
        name: of the new suite.
        budget: gradients an image it may cost.
        min_gain: smallest fall of the mean suite_min that a further member must bring.

    Raises:
        RunError: no attack of the run qualifies.
        BadSuite: the run's suite is none of this version, or `name` is no name.
    """
    found = _measured(manifest, table)
    models = list(found.clean)
    chosen = _choose(found, models, budget, min_gain)
    if not chosen:
        raise RunError(
            f"no attack of run {manifest.run!r} lowers the mean SROCC by {min_gain:g} for {budget:g} "
            "gradients an image"
        )
    held_out = []
    for model in models if len(models) > 1 else ():
        others = _choose(found, [m for m in models if m != model], budget, min_gain)
        fall = found.clean[model] - found.whole[model]
        held_out.append(HeldOut(model, found.cost(others), found.fall(others, model), fall))
    members = tuple(
        Chosen(
            f"{_name(found.suite, m)}/{m.objective}",
            found.cost(chosen[:i]),
            found.mean_fall(chosen[:i], models),
        )
        for i, m in enumerate(chosen, start=1)
    )
    whole = math.fsum(found.clean[m] - found.whole[m] for m in models) / len(models)
    full = {m._replace(steps=0): m for m in sorted(found.values, key=lambda m: m.steps)}  # no prefixes
    cost = found.cost(full.values())
    built = BuiltSuite(LoadedSuite(found.suite, ""), members, tuple(held_out), whole, cost)
    text = _text(manifest, found.suite, chosen, name, built)
    return built._replace(suite=LoadedSuite(parse_suite(text, f"suite {name!r} built"), text))


def _measured(manifest: RunManifest, table: Sequence[Estimate]) -> _Measured:
    suite = parse_suite(manifest.suite_text, f"suite of run {manifest.run}")
    attacks = {a.name: a for a in suite.own_attacks if a.training is None}
    clean: dict[str, float] = {}
    whole: dict[str, float] = {}
    values: dict[Member, dict[str, float]] = {}
    for row in table:
        if row.metric != "srocc" or row.value is None or row.verdict in ("invalid", "incomplete"):
            continue
        if row.row == "clean":
            clean[row.model] = row.value
        if row.epsilon != manifest.main_epsilon:
            continue
        if row.row == "suite_min" and row.final:
            whole[row.model] = row.value
        # A prefix of any other attack is no run of its own with fewer steps.
        own = attacks.get(row.attack) if row.row == "attack" else None
        if own is not None and (row.final or issubclass(own.attack_class, PGD)):
            values.setdefault(Member(row.attack, row.objective, row.steps), {})[row.model] = row.value
    models = {m: value for m, value in clean.items() if m in whole}
    if not models:
        raise RunError(f"run {manifest.run!r} has no model with a suite_min that is to be believed")
    everywhere = {m: found for m, found in values.items() if models.keys() <= found.keys()}
    return _Measured(suite, everywhere, models, whole)


def _choose(found: _Measured, models: Sequence[str], budget: float, min_gain: float) -> list[Member]:
    """Return members in the order they are taken, without those that later ones made needless."""
    chosen: list[Member] = []
    while True:
        reached, spent = found.mean_fall(chosen, models), found.cost(chosen)
        best, most = chosen, 0.0
        for member in found.values:
            gain = found.mean_fall((*chosen, member), models) - reached
            if gain < min_gain or not gain > 0:
                continue
            tried = _needed(found, models, [*chosen, member])
            cost = found.cost(tried)
            rate = gain / max(cost - spent, 1e-9)  # one that replaces dearer ones costs nothing
            if cost <= budget and rate > most:
                best, most = tried, rate
        if best is chosen:
            return chosen
        chosen = best


def _needed(found: _Measured, models: Sequence[str], members: list[Member]) -> list[Member]:
    """Return members without those that lower no model's minimum further, the earliest dropped first."""
    for member in members[:-1]:
        without = [m for m in members if m != member]
        if found.mean_fall(without, models) >= found.mean_fall(members, models):
            members = without
    return members


def _label(suite: Suite, member: Member) -> str:
    return f"{_name(suite, member)}/{member.objective}"


def _name(suite: Suite, member: Member) -> str:
    """Return what the attack of a member is called: its own name, with the number of steps of a prefix."""
    full = _attack(suite, member.attack).effort.steps
    return member.attack if member.steps == full else f"{member.attack}_{member.steps}"


def _attack(suite: Suite, name: str) -> Attack:
    """Return an attack of a suite at its main radius."""
    settings = next(a for a in suite.own_attacks if a.name == name)
    return settings.attack(suite.main_epsilon, suite.seed)


def _text(manifest: RunManifest, suite: Suite, chosen: Sequence[Member], name: str, built: BuiltSuite) -> str:
    """Return the suite as TOML: what the run's suite says of everything but its attacks stays as it is."""
    import tomlkit

    said = read_toml(manifest.suite_text)
    own = {each["name"]: each for each in said["attacks"]}
    attacks: dict[str, dict[str, Any]] = {}
    for member in chosen:
        called = _name(suite, member)
        if called not in attacks:
            kept = {k: v for k, v in own[member.attack].items() if not k.startswith("report_")}
            attacks[called] = kept | {"name": called, "epsilons": [said["main_epsilon"]], "objectives": []}
            if called != member.attack:
                attacks[called]["steps"] = member.steps
        attacks[called]["objectives"].append(member.objective)
    for attack in attacks.values():
        for setting, objective in objectives_with_settings().items():
            if objective not in attack["objectives"]:
                attack.pop(setting, None)  # it would do nothing, and is refused
    share = "" if built.share is None else f", {built.share:.0%} of its fall on a model left out"
    head = {
        "name": name,
        "summary": f"built from {suite.name}: about {built.gradients:,.0f} gradients an image{share}",
        "suite_min": [each.member for each in built.members],
    }
    rest = {k: v for k, v in said.items() if k not in (*head, "step_sweep", "attacks", "data")}
    content = head | rest | {"data": said["data"], "attacks": list(attacks.values())}
    return f"# Built from run {manifest.run!r} of suite {suite.name}.\n{tomlkit.dumps(content)}"
