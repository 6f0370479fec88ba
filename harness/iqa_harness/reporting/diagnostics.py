"""A neck's diagnostics over images, and as a Parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from iqa_harness.data import ImageSet
    from iqa_models.srm import DiagnosticRow

SCHEMA_VERSION = 1
"""Raised when the columns of the Parquet file change."""


def image_batches(images: ImageSet, batch: int, device: str) -> Iterator[Tensor]:
    """Yield an image set as batches (B, 3, H, W) in [0, 1], in its own order."""
    import torch

    from iqa_harness.cells.compute import to_tensor

    for start in range(0, len(images), batch):
        stop = min(start + batch, len(images))
        yield torch.stack([to_tensor(images.read(index), device) for index in range(start, stop)])


def write_diagnostics(
    path: Path, rows: Sequence[DiagnosticRow], *, context: Iterable[tuple[str, str]]
) -> Path:
    """Write rows as Parquet, whole or not at all.

    Args:
        path: of the file; its folder is made if missing.
        rows: of `SRMQuality.diagnostics`.
        context: names and values that are stored in the file's metadata (model, data, weights).

    Returns:
        The path.
    """
    import pyarrow as pa

    from iqa_results import write_parquet

    schema = pa.schema(
        [
            pa.field("table", pa.string(), nullable=False),
            pa.field("quantity", pa.string(), nullable=False),
            pa.field("place", pa.string(), nullable=False),
            pa.field("statistic", pa.string(), nullable=False),
            pa.field("value", pa.float64(), nullable=False),
            pa.field("samples", pa.int64(), nullable=False),
        ],
        metadata={"schema_version": str(SCHEMA_VERSION), **dict(context)},
    )
    return write_parquet(path, pa.Table.from_pylist([row._asdict() for row in rows], schema))
