"""Files of other commands as frames for a report: Parquet of known columns, training folders, checkpoints."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_errors.json_text import read_json
from iqa_harness.errors import RunError
from iqa_harness.reporting.results import Identity, over_seeds
from iqa_harness.reporting.studies import checkpoint_results, evaluation_results, is_evaluation, run_name
from iqa_harness.training.logs import LOG
from iqa_models import BadCheckpoint
from iqa_models.checkpoint import read_card
from iqa_reports import FRAMES
from iqa_reports.inputs.frames import KEY, Epoch, Result, Setting

_SCALARS = (int, float)

STUDY_COLUMNS = frozenset(("label", "settings", "seeds", "status"))
"""By these the table of a study is known; it is for readers, reports draw on its folder."""


def read_inputs(places: Sequence[Path]) -> dict[str, list[Any]]:
    """Return the records of each kind (`iqa_reports.FRAMES`) from files and folders.

    A Parquet file is what its metadata says, or the kind whose columns it has. A folder is searched for
    those and for training folders (log.jsonl, card.json, figures.json), which give training, settings and
    what each checkpoint came to; seeds of one model are put together.

    Raises:
        RunError: a place does not exist, a Parquet file is of no known kind, or a log cannot be read.
    """
    found: dict[str, list[Any]] = {}
    judged: list[tuple[Identity, Result]] = []
    for place in places:
        if not place.exists():
            raise RunError(f"{place}: no such file or folder")
        files = [place] if place.is_file() else sorted(place.rglob("*.parquet"))
        for file in files:
            kind, rows = _read(file, required=place.is_file())
            if kind is not None:
                found.setdefault(kind, []).extend(rows)
        if place.is_dir():
            for log in sorted(place.rglob(LOG)):
                found.setdefault("training", []).extend(training_rows(log.parent))
                found.setdefault("settings", []).extend(settings_rows(log.parent))
                judged += checkpoint_results(log.parent)
    if judged:
        found.setdefault("results", []).extend(over_seeds(judged))
    return found


def training_rows(folder: Path) -> list[Epoch]:
    """Return a training folder's log: every number of every epoch.

    A number whose name is NAME/PLACE, or a mapping of places, becomes one row a place.

    Raises:
        RunError: the log is damaged; the message names the line.
    """
    rows: list[Epoch] = []
    best = _training(folder).get("best_epoch")
    try:
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise RunError(f"{folder / LOG}: no UTF-8 text ({error})") from error
    for number, line in enumerate(lines, start=1):
        try:
            entry = read_json(line)
            epoch = operator.index(entry.pop("epoch"))
            for name, value in entry.items():
                for place, one in value.items() if isinstance(value, dict) else [("", value)]:
                    quantity, _, inner = name.partition("/")
                    if one is None or (isinstance(one, _SCALARS) and not isinstance(one, bool)):
                        shown = None if one is None else float(one)
                        rows.append(
                            Epoch(run_name(folder), epoch, quantity, place or inner, shown, epoch == best)
                        )
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise RunError(f"{folder / LOG}, line {number}: not an epoch's JSON ({error})") from error
    return rows


def settings_rows(folder: Path) -> list[Setting]:
    """Return what a checkpoint's card says of model, training and data."""
    rows: list[Setting] = []
    try:
        card = read_card(folder)
    except BadCheckpoint:
        return rows  # training goes on: its log is there, its card is not

    def add(category: str, values: Mapping[str, Any], leave: Sequence[str] = ()) -> None:
        rows.extend(
            Setting(run_name(folder), category, name, _words(value))
            for name, value in values.items()
            if name not in leave
        )

    model = card.model
    add("architecture", {"registered": model.name, "backbone": model.trunk, "input": model.input_protocol})
    add("architecture", model.options, ("seed",))
    config = card.training.get("config")
    if isinstance(config, dict):
        add("training", config, ("name", "model", "options", "data"))
    wanted = ("data", "data_label", "train_images", "val_images", "best_epoch", "seconds")
    add("data", {name: card.training[name] for name in wanted if name in card.training})
    return rows


def _read(file: Path, *, required: bool) -> tuple[str | None, list[Any]]:
    """Return the kind of a Parquet file and its records; kind None for one of another kind in a folder."""
    try:
        table = pq.ParquetFile(file, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{file}: not a readable Parquet file ({error})") from error
    metadata = table.schema.metadata or {}
    if is_evaluation(table):
        return "results", evaluation_results(table)
    named = metadata.get(KEY, b"").decode()
    kinds = [named] if named in FRAMES else [k for k, s in FRAMES.items() if _fits(table, s.arrow, metadata)]
    if len(kinds) != 1:
        if not required:
            return None, []
        if set(table.column_names) >= STUDY_COLUMNS:
            raise RunError(
                f"{file}: a study's table; give its folder, --input {file.parent}: logs, checkpoints and "
                "worst cases are read from there"
            )
        raise RunError(
            f"{file}: of no kind a report knows; it takes {', '.join(FRAMES)} (columns: reports/README.md), "
            f"this has the columns {', '.join(table.column_names)}"
        )
    schema = FRAMES[kinds[0]]
    if "model" not in table.column_names and b"model" in metadata:
        table = table.append_column("model", pa.array([metadata[b"model"].decode()] * table.num_rows))
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise RunError(f"{file}: lacks the columns {', '.join(missing)} of {kinds[0]}")
    try:
        return kinds[0], schema.rows(table.select(schema.names).cast(schema.arrow))
    except pa.ArrowException as error:
        raise RunError(f"{file}: not the types of {kinds[0]} ({error})") from error


def _fits(table: pa.Table, schema: pa.Schema, metadata: Mapping[bytes, bytes]) -> bool:
    # `diagnose` keeps the model's name in the file's metadata, once.
    there = {*table.column_names, *(["model"] if b"model" in metadata else [])}
    return set(schema.names) <= there


def _training(folder: Path) -> Mapping[str, Any]:
    try:
        return read_card(folder).training
    except BadCheckpoint:
        return {}


def _words(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)
