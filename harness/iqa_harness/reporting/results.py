"""One frame of results over many runs and evaluations, seeds of one model put together."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from iqa_errors.json_text import read_json
from iqa_reports import StoredRun
from iqa_reports.inputs.frames import Cost, Result
from iqa_results import Estimate, ModelRecord

_NOT_DECISIVE = ("name", "seed", "threads")
"""Settings of a training run that two seeds of one model may differ in."""


class Identity(NamedTuple):
    """What a model is, beyond its name in a run."""

    registered: str | None
    backbone: str | None
    neck: str | None
    variant: str | None
    loss: str | None
    lr: float | None
    trained_on: str | None
    seed: int | None
    family: str
    """Equal for models that differ by their seed alone."""


def identify(record: ModelRecord) -> Identity:
    """Return what a run's record, and the card of its checkpoint where it still is, say of a model."""
    return identify_card(record.card, training_record(record), record.sha256)


def identify_card(card: Mapping[str, Any], training: Mapping[str, Any], sha256: str) -> Identity:
    """Return what a model's card and its training record say; the hash stands for what is unknown."""
    options = _mapping(card.get("options"))
    config = _mapping(training.get("config"))
    neck = {"srm": "srm", "none": "baseline"}.get(str(options.get("neck")))
    seed = config.get("seed", options.get("seed"))
    rest = {k: v for k, v in options.items() if k != "seed"}
    settings = {k: v for k, v in config.items() if k not in _NOT_DECISIVE}
    settings["options"] = {k: v for k, v in _mapping(config.get("options")).items() if k != "seed"}
    known = training or "seed" in options
    family = [card.get("name"), rest, settings, training.get("data")] if known else [sha256]
    lr = config.get("lr_trunk")
    return Identity(
        _text(card.get("name")),
        _text(card.get("trunk")),
        neck,
        _variant(options, neck),
        _text(config.get("loss")),
        float(lr) if isinstance(lr, int | float) else None,
        _text(training.get("data")),
        seed if isinstance(seed, int) else None,
        json.dumps(family, sort_keys=True),
    )


def training_record(record: ModelRecord) -> Mapping[str, Any]:
    """Return how a model's weights came about; empty if its checkpoint is elsewhere now, or another one."""
    if record.checkpoint is None:
        return {}
    try:
        # As plain JSON: the weights' own checks belong to whoever loads them, with torch.
        card = read_json((Path(record.checkpoint) / "card.json").read_bytes())
    except (OSError, ValueError):
        return {}
    same = isinstance(card, dict) and card.get("model") == dict(record.card)
    return _mapping(card.get("training")) if same else {}


def results_of(
    runs: Sequence[StoredRun], more: Iterable[Result] = (), costs: Sequence[Cost] = ()
) -> list[Result]:
    """Return the results of all runs at full strength.

    Args:
        runs: as read.
        more: results of other commands, as their files hold them.
        costs: of `iqa-harness profile`, matched by the models' names.
    """
    rows: list[tuple[Identity, Result]] = []
    for run in runs:
        known = {record.name: identify(record) for record in run.manifest.models}
        final = (row for row in run.estimates if row.final)
        rows += [(known[row.model], _result(run, row, known[row.model])) for row in final]
    sizes = {c.model: (c.parameters, _macs(c)) for c in costs if c.part == "whole"}
    # A study's file may hold what a run given beside it holds: once is enough.
    return with_sizes(list(dict.fromkeys([*over_seeds(rows), *more])), sizes)


def with_sizes(results: Sequence[Result], sizes: Mapping[str, tuple[int | None, int | None]]) -> list[Result]:
    """Return the results with parameters and multiply-adds of the models whose names have them."""
    return [
        r._replace(parameters=sizes[r.model][0], macs=sizes[r.model][1]) if r.model in sizes else r
        for r in results
    ]


def _macs(cost: Cost) -> int | None:
    """Return the multiply-adds of one image."""
    return None if cost.macs is None else cost.macs // cost.batch


def _result(run: StoredRun, row: Estimate, identity: Identity) -> Result:
    copied = {name: getattr(row, name) for name in _COPIED}
    return Result(model=row.model, **shared(identity), suite=run.manifest.suite, **copied)


def shared(identity: Identity | None) -> dict[str, Any]:
    """Return what a result says of the model it is of: nothing if nothing is known."""
    return {name: getattr(identity, name, None) for name in _SHARED}


_SHARED = ("registered", "backbone", "neck", "variant", "loss", "lr", "trained_on")
_COPIED = (
    "data", "split", "images", "row", "attack", "objective", "norm", "epsilon", "metric", "value", "low",
    "high", "undefined",
)  # fmt: skip


def over_seeds(rows: Sequence[tuple[Identity, Result]]) -> list[Result]:
    """Put models that differ by their seed alone into one row each value; all others stay as they are."""
    families: dict[str, dict[str, int | None]] = {}
    for identity, row in rows:
        families.setdefault(identity.family, {})[row.model] = identity.seed
    shared = {
        family: names
        for family, names in families.items()
        if len(names) > 1 and None not in names.values() and len(set(names.values())) == len(names)
    }
    alone = [row for identity, row in rows if identity.family not in shared]
    merged: list[Result] = []
    for family, names in shared.items():
        places: dict[tuple[Any, ...], list[Result]] = {}
        for identity, row in rows:
            if identity.family == family:
                places.setdefault(_place(row), []).append(row)
        label = f"{_common(list(names))} ({len(names)} seeds)"
        merged += [_mean(label, found, len(names)) for found in places.values()]
    return [*alone, *merged]


def _place(row: Result) -> tuple[Any, ...]:
    # The member that gives a suite's minimum may differ from seed to seed; the minimum is one place.
    member = (row.attack, row.objective) if row.row == "attack" else ("", "")
    return row.suite, row.data, row.split, row.row, *member, row.norm, row.epsilon, row.metric


def _mean(label: str, found: Sequence[Result], seeds: int) -> Result:
    first = found[0]
    by_model = {row.model: row.value for row in found}
    values = [value for value in by_model.values() if value is not None]
    undefined = None
    if len(values) < seeds:
        undefined = f"a value of {len(values)} of {seeds} seeds only"
    member = ("", "") if first.row == "suite_min" else (first.attack, first.objective)
    return first._replace(
        model=label,
        attack=member[0],
        objective=member[1],
        value=None if undefined else statistics.fmean(values),
        std=None if undefined else statistics.stdev(values),
        seeds=seeds,
        low=None,
        high=None,
        undefined=undefined,
    )


def _common(names: Sequence[str]) -> str:
    """Return what the names of all seeds begin with, without the separator and the word seed."""
    columns = takewhile(lambda signs: len(set(signs)) == 1, zip(*names, strict=False))
    head = "".join(signs[0] for signs in columns).rstrip("-_. =?&")
    for word in ("seed", "s"):
        trimmed = head.removesuffix(word).rstrip("-_. =?&")
        if trimmed != head and trimmed and head[len(trimmed) :][:1] in "-_. =?&":
            return trimmed
    return head or names[0]


def _variant(options: Mapping[str, Any], neck: str | None) -> str | None:
    if neck == "srm":
        return _text(options.get("ablation")) or "none"
    return _text(options.get("fusion"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
