"""Studies: a grid of training runs as a TOML file, what it holds and the runs it means."""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from iqa_errors.toml_text import read_toml
from iqa_harness.errors import TrainingError
from iqa_harness.training.config import TrainConfig, changed, find_config


class Point(BaseModel):
    """One row of a study."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    label: str
    """Name of the row, and of the folder of its runs."""
    set: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings that differ from the base."""
    preset: str | None = None
    """Another preset than the study's."""
    published: dict[str, float] = Field(default_factory=dict)
    """Figures of the paper for this row, shown beside: name = value."""

    @field_validator("label")
    @classmethod
    def _is_a_name(cls, label: str) -> str:
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}", label) is None:
            raise ValueError("letters, digits and . _ + = - only, as it names a folder")
        return label


class SuiteRun(BaseModel):
    """A suite that checkpoints of a study are run through, and which of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    suite: str
    """Attack suite by name, or the path of a TOML file."""
    rows: tuple[str, ...] = ()
    """Shell patterns of the rows that are attacked; all without."""
    seeds: tuple[int, ...] = ()
    """Seeds whose checkpoints are attacked; all without."""

    def takes(self, label: str, seed: int) -> bool:
        """Whether the checkpoint of a row and seed is attacked."""
        named = not self.rows or any(fnmatch.fnmatchcase(label, pattern) for pattern in self.rows)
        return named and (not self.seeds or seed in self.seeds)


class Study(BaseModel):
    """A grid of training runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name of the study; its folder carries it."""
    summary: str
    """What is compared, in a line."""
    preset: str
    """Training preset (or TOML file) all points start from."""
    base: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings changed for all points."""
    seeds: tuple[int, ...] = (0,)
    """One run a point and seed; the table holds mean and deviation."""
    points: tuple[Point, ...] = ()
    """Rows by name."""
    grid: dict[str, list[JsonValue]] = Field(default_factory=dict)
    """Setting = values: the product of all, each combined with every point."""
    suite: str | None = None
    """Attack suite all checkpoints are run through: the table then holds the worst cases."""
    suites: tuple[SuiteRun, ...] = ()
    """Further suites, each a run of its own with columns of its own."""
    contrasts: tuple[tuple[str, str], ...] = ()
    """Pairs of rows whose difference is of interest, first minus second, named before anything is run."""
    notes: tuple[str, ...] = ()
    """Sentences beneath the table."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.points and not self.grid:
            raise ValueError("points or grid: a study needs one of them")
        labels = [point.label for point in self.points]
        doubles = sorted({label for label in labels if labels.count(label) > 1})
        if doubles:
            raise ValueError(f"points: {', '.join(doubles)} stands there twice")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("seeds: different whole numbers from 0")
        for key, values in self.grid.items():
            if not values:
                raise ValueError(f"grid: {key} has no values")
        names = [run.suite for run in self.suite_runs]
        if len(set(names)) != len(names):
            raise ValueError("suites: one is named twice")
        return self

    @property
    def suite_runs(self) -> tuple[SuiteRun, ...]:
        """All suites, the one of `suite` first."""
        return (*(() if self.suite is None else (SuiteRun(suite=self.suite),)), *self.suites)


class StudyRow(NamedTuple):
    """A point of the grid with the settings of its runs, one a seed."""

    label: str
    settings: dict[str, JsonValue]
    """What differs between rows."""
    published: dict[str, float]
    configs: dict[int, TrainConfig]
    """By seed."""


def list_studies() -> list[str]:
    """Return the names of the studies that ship with the harness, sorted."""
    return sorted(i.name.removesuffix(".toml") for i in _folder().iterdir() if i.name.endswith(".toml"))


def load_study(name: str) -> tuple[Study, str]:
    """Return a study by name or by the path of a TOML file, and its text.

    Raises:
        TrainingError: no such study or file, or one that breaks the layout, with every key at fault.
    """
    file: Traversable = Path(name) if name.endswith(".toml") else _folder() / f"{name}.toml"
    if not file.is_file():
        raise TrainingError(
            f"no study {name!r}; write a TOML file's path, or one of: {', '.join(list_studies())}"
        )
    try:
        text = file.read_text(encoding="utf-8")
        return Study.model_validate(read_toml(text)), text
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in error.errors()]
        raise TrainingError(f"{name}: {'; '.join(lines)}") from error
    except RecursionError:
        raise TrainingError(f"{name}: values are nested too deeply; write them flatter") from None
    except (OSError, ValueError) as error:  # ValueError: no UTF-8 or no TOML
        raise TrainingError(f"{name}: {error}") from error


def study_rows(study: Study, changes: Mapping[str, JsonValue] | None = None) -> list[StudyRow]:
    """Return the rows of a study; all settings are checked before anything is trained.

    Args:
        study: the grid.
        changes: the user's own settings, put over the study's base (and under its points).

    Raises:
        TrainingError: a setting of the base, a point or the grid is refused; the message names it.
    """
    rows = []
    for point in study.points or (Point(label="all"),):
        config = find_config(point.preset or study.preset)
        config = changed(config, {**study.base, **(changes or {})}, f"{study.name}: base")
        for values in itertools.product(*study.grid.values()):
            combined = dict(zip(study.grid, values, strict=True))
            parts = [point.label] if study.points else []
            label = "-".join(
                [*parts, *(f"{key.rpartition('.')[2]}={_short(v)}" for key, v in combined.items())]
            )
            settings = {**point.set, **combined}
            where = f"{study.name}: point {label}"
            rows.append(
                StudyRow(
                    label,
                    settings,
                    point.published,
                    {
                        seed: changed(config, {**settings, "seed": seed, "options.seed": seed}, where)
                        for seed in study.seeds
                    },
                )
            )
    labels = [row.label for row in rows]
    if len(set(labels)) != len(labels):
        raise TrainingError(f"{study.name}: two rows have one name: {', '.join(sorted(labels))}")
    for run in study.suite_runs:
        for pattern in run.rows:
            if not fnmatch.filter(labels, pattern):
                raise TrainingError(
                    f"{study.name}: suites: {run.suite}: no row is named {pattern!r}; there are: "
                    f"{', '.join(labels)}"
                )
    for pair in study.contrasts:
        if unknown := sorted(set(pair) - set(labels)) or (pair[0] == pair[1] and pair[:1]):
            raise TrainingError(
                f"{study.name}: contrasts: {pair[0]} - {pair[1]}: two rows of the study, not "
                f"{', '.join(unknown)}; there are: {', '.join(labels)}"
            )
    return rows


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9._+=-]", "_", text)


def _folder() -> Traversable:
    return resources.files("iqa_harness.studies") / "definitions"
