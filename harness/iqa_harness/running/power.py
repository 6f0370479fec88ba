"""A power test: plants in the models' scores, and which of them a suite's attacks find."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from iqa_attacks import AttackError, Norm
from iqa_attacks.queries import QueryAttack
from iqa_attacks.seeding import start_generator
from iqa_harness.cells.compute import to_tensor
from iqa_harness.cells.plan import Work
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evaluation.evaluate import in_use
from iqa_harness.evidence.plants import STEEPNESSES, WIDTHS, Bed, Planted, look, make_bed
from iqa_harness.machine.devices import same_kernels
from iqa_harness.machine.provenance import code_version
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.terminal import progress_bar, say
from iqa_models.registry import did_you_mean
from iqa_results import PLANT, Plant, ResultStore
from iqa_suites import Suite
from iqa_suites.attack_settings import OwnAttackSettings

PLANTED = 6
"""Images that plants stand near, where nothing else is said."""
GRADES = tuple((width, steepness) for width in WIDTHS for steepness in STEEPNESSES)
VERSION = 1
"""Part of every key: raised when plants of a grade become others."""


class Search(NamedTuple):
    """One attack on one model with plants of one grade, near all chosen images."""

    label: str
    settings: OwnAttackSettings
    width: float
    steepness: float
    key: str


class Wanted(NamedTuple):
    """What is planted, and who looks for it."""

    work: Work
    places: tuple[tuple[int, int], ...]
    """Place of each chosen image, and 1 for a plant that raises its score, -1 for one that lowers it."""
    searches: tuple[Search, ...]

    @property
    def keys(self) -> frozenset[str]:
        """Keys of all that is looked for."""
        return frozenset(search.key for search in self.searches)


def wanted(
    work: Work, models: Mapping[str, str], images: int = PLANTED, attacks: Sequence[str] = ()
) -> Wanted:
    """Say what is planted in some models and who looks for it.

    Args:
        work: suite and images.
        models: hash by name.
        images: how many are planted near, half of them to be raised.
        attacks: names of the suite's; by default all at the main radius but those that train on images or
            ask for scores alone, which take a thousand times as long.

    Raises:
        RunError: no such attack at the main radius, or fewer than two images.
    """
    places = tuple(chosen_images(work.images, images, work.suite.seed))
    ids = [work.images.records[place].image_id for place, _ in places]
    searches = []
    for label, sha256 in models.items():
        for settings in chosen_attacks(work.suite, attacks):
            said = [
                VERSION,
                sha256,
                settings.model_dump(mode="json"),
                work.suite.main_epsilon,
                work.suite.seed,
            ]
            for grade in GRADES:
                content = json.dumps([*said, work.images.fingerprint, ids, grade], sort_keys=True)
                key = hashlib.sha256(content.encode()).hexdigest()
                searches.append(Search(label, settings, *grade, key))
    return Wanted(work, places, tuple(searches))


def chosen_images(images: ImageSet, count: int, seed: int) -> Iterator[tuple[int, int]]:
    """Yield places of images and the sign of their plants: of the third with the lowest labels 1, highest -1.

    Raises:
        RunError: fewer than two images.
    """
    if len(images) < 2:
        raise RunError("a power test needs two images or more: one to be raised, one to be lowered")
    order = sorted(range(len(images)), key=lambda i: (images.records[i].mos, images.records[i].image_id))
    side = max(1, len(images) // 3)
    chosen = []
    for sign, part in ((1, order[:side]), (-1, order[-side:])):
        drawn = torch.randperm(side, generator=start_generator(seed, "plants", sign + 1)).tolist()
        chosen += [(part[i], sign) for i in drawn[: max(1, count // 2)]]
    yield from sorted(chosen)


def chosen_attacks(suite: Suite, names: Sequence[str]) -> list[OwnAttackSettings]:
    """Return the attacks of a suite that look for plants; see `wanted`."""
    there = {attack.name: attack for attack in suite.own_attacks if suite.main_epsilon in attack.epsilons}
    for name in names:
        if name not in there:
            raise RunError(
                f"no attack {name!r} of suite {suite.name!r} at the main radius{did_you_mean(name, there)}; "
                f"there are {', '.join(there)}"
            )
    if names:
        return [there[name] for name in dict.fromkeys(names)]
    return [a for a in there.values() if a.training is None and not issubclass(a.attack_class, QueryAttack)]


def find_plants(
    asked: Wanted,
    entrants: Sequence[Entrant],
    runtime: Runtime,
    keep: Callable[[list[Plant]], None],
    done: Collection[str] = (),
    *,
    progress: bool = True,
) -> None:
    """Make one search after another; why a model has no plants is said on standard error.

    Args:
        asked: from `wanted`.
        entrants: its models.
        runtime: device and chunk size; the work is done in this process.
        keep: takes the rows of each search as it is done.
        done: keys of searches that are not made again.
        progress: show how far it is.
    """
    missing = [search for search in asked.searches if search.key not in done]
    with progress_bar("looking for plants", len(missing), show=progress and bool(missing)) as advance:
        for entrant in entrants:
            todo = [search for search in missing if search.label == entrant.label]
            reason = _not_plantable(entrant) if todo else None
            if todo and reason is None:
                with in_use(entrant.model, runtime.device), same_kernels(runtime.device):
                    try:
                        for rows in _of_model(asked, entrant, todo, runtime):
                            keep(rows)
                            advance()
                    except AttackError as error:
                        reason = str(error)
            if reason is not None:
                say(f"{entrant.label}: nothing was planted: {reason}", err=True)


def keep_plants(
    asked: Wanted,
    entrants: Sequence[Entrant],
    runtime: Runtime,
    store: ResultStore,
    run: str,
    *,
    progress: bool = True,
) -> None:
    """Make the searches whose rows a run does not have, and store them with it as they come.

    Rows of the same attack and model that are not wanted now go.
    """

    def keep(rows: list[Plant]) -> None:
        with store.locked_run(run):
            new, own = {(row.model, row.attack) for row in rows}, {row.key for row in rows}
            kept = [
                row
                for row in _stored(store, run)
                if row.key not in own and ((row.model, row.attack) not in new or row.key in asked.keys)
            ]
            store.write_table(run, [*kept, *rows], "plants")

    find_plants(asked, entrants, runtime, keep, stored_keys(store, run), progress=progress)


def _not_plantable(entrant: Entrant) -> str | None:
    if entrant.model.is_stochastic:
        return "it draws, and its draws would drown the plants"
    return None if entrant.model.spec.has_gradient else "it has no gradient"


def _of_model(
    asked: Wanted, entrant: Entrant, todo: Sequence[Search], runtime: Runtime
) -> Iterator[list[Plant]]:
    suite, images = asked.work.suite, asked.work.images
    low, high = images.card.mos_range
    beds: dict[tuple[Norm, str], list[tuple[int, Bed]]] = {}
    for search in todo:
        attack = search.settings.attack(suite.main_epsilon, suite.seed)
        place = (attack.threat.norm, attack.threat.constraint)
        if place not in beds:
            made = [
                (i, make_bed(
                    entrant.model, to_tensor(images.read(i), runtime.device), attack.threat, sign,
                    seed=suite.seed, name=images.records[i].image_id,
                ))
                for i, sign in asked.places
            ]  # fmt: skip
            beds[place] = [(i, bed) for i, bed in made if bed is not None]
            if len(beds[place]) < 2:
                raise AttackError(f"of {len(made)} images the score moves steadily along a line at too few")
        places, own = zip(*beds[place], strict=True)
        mos = torch.tensor(
            [(images.records[i].mos - low) / (high - low) for i in places], dtype=torch.float64
        )
        started = time.perf_counter()
        planted = Planted(entrant.model, own, search.width, search.steepness)
        looked = look(planted, own, attack, mos, runtime.at_most)
        seconds = (time.perf_counter() - started) / len(own)
        yield [
            Plant(
                model=entrant.label, model_sha256=entrant.sha256, attack=search.settings.name,
                kind=search.settings.kind, norm=attack.threat.norm, epsilon=attack.threat.epsilon,
                key=search.key, image_id=bed.name, direction="raise" if bed.sign > 0 else "lower",
                width=search.width, steepness=search.steepness,
                height=bed.sign * bed.height(search.width, search.steepness), near=each.near,
                found=each.found, forwards=each.cost.forwards, backwards=each.cost.backwards,
                seconds=seconds, harness=code_version(),
            )
            for bed, each in zip(own, looked, strict=True)
        ]  # fmt: skip


def stored_keys(store: ResultStore, run: str) -> frozenset[str]:
    """Return the keys of the searches whose rows a run has."""
    return frozenset(row.key for row in _stored(store, run))


def _stored(store: ResultStore, run: str) -> list[Plant]:
    return PLANT.rows(store.read_table(run, "plants")) if store.has_table(run, "plants") else []
