"""What a run writes down while it trains: an epoch a line always, a step a line and TensorBoard on demand."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iqa_harness.errors import TrainingError
from iqa_harness.training.state import EpochLog
from iqa_results.storage import write_whole

LOG = "log.jsonl"
"""Name of the log beside the checkpoint, one JSON object an epoch."""
STEP_LOG = "steps.csv"
"""Name of the log of steps."""
TENSORBOARD = "tensorboard"
"""Folder of the event files."""


def write_epochs(folder: Path, log: Sequence[EpochLog]) -> None:
    """Write `LOG` whole."""
    lines = "".join(entry.model_dump_json() + "\n" for entry in log)
    write_whole(folder / LOG, lines.encode())


class StepLog:
    """Rows of `STEP_LOG` and scalars for TensorBoard; a resumed run goes on behind its last saved step."""

    def __init__(self, folder: Path, *, steps: bool, tensorboard: bool, done: int) -> None:
        self._path = folder / STEP_LOG if steps else None
        self._writer: Any = _tensorboard(folder / TENSORBOARD, done) if tensorboard else None
        if self._path is not None:
            self._begin(self._path, done)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of one step, counted from 1."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"step/{name}", value, step)
        if self._path is None:
            return
        row = {"step": step, **values}
        with self._path.open("a", encoding="utf-8", newline="") as file:
            # Names are those of the first row: settings do not change in a run.
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)

    def epoch(self, entry: EpochLog) -> None:
        """Write an epoch's figures for TensorBoard."""
        if self._writer is None:
            return
        values = {
            "loss": entry.loss,
            "val_srocc": entry.val_srocc,
            **{f"lr/{k}": v for k, v in entry.rates.items()},
        }
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(f"epoch/{name}", value, entry.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()

    def _begin(self, path: Path, done: int) -> None:
        """Drop the rows of steps that will be done again."""
        if done == 0 or not path.exists():
            path.unlink(missing_ok=True)
            return
        header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        kept = [row for row in rows if (step := row.partition(",")[0]).isdigit() and int(step) <= done]
        write_whole(path, "".join([header, *kept]).encode())


def _tensorboard(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(
            f"the TensorBoard log needs a package that is not here ({error}); "
            "pip install 'iqa-harness[tensorboard]', or leave --tensorboard out: log.jsonl is always written"
        ) from error
    # Events of steps that are done again are purged by the reader.
    writer: Any = SummaryWriter(str(folder), purge_step=done + 1 if done else None)
    return writer
