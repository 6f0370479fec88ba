"""What a model looks at, as frames and files for reports: attention, feature maps, a neck's diagnostics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from iqa_harness.cells.compute import to_tensor
from iqa_harness.data.image_set import ImageSet
from iqa_harness.errors import RunError
from iqa_models import QualityModel
from iqa_models.hyper.model import HyperQuality
from iqa_models.srm import DiagnosticRow
from iqa_reports import FRAMES, make_frame
from iqa_reports.inputs.frames import Attention, Feature
from iqa_results import write_parquet

SCHEMA_VERSION = 1
"""Raised when the columns of the file of diagnostics change."""


def attention_rows(model: QualityModel, label: str, images: ImageSet, device: str = "cpu") -> list[Attention]:
    """Return the weight of each stage on every image, mean over the image's crops.

    Raises:
        RunError: the model has no attention over stages.
    """
    if not isinstance(model, HyperQuality) or model.head.fusion.attention is None:
        raise RunError(f"{label}: has no attention over stages; take a smart_iqa model with fusion=attention")
    rows = []
    with torch.no_grad():
        for index, record in enumerate(images.records):
            found = model.explain(to_tensor(images.read(index), device).unsqueeze(0))
            assert found.attention is not None  # noqa: S101 - asked for above
            weights = found.attention[0].cpu().double().mean(dim=0).tolist()
            score = float(found.scores[0].cpu().double().mean())
            rows.append(Attention(label, record.image_id, record.mos, score, *weights))
    return rows


def feature_frame(
    model: QualityModel, label: str, images: ImageSet, indices: Sequence[int], device: str = "cpu"
) -> pa.Table:
    """Return the mean absolute activation of the trunk's four stages on some images (FEATURES).

    The maps are of the first crop that the model looks at.

    Raises:
        RunError: the model has no trunk with four stages.
    """
    if not isinstance(model, HyperQuality):
        raise RunError(f"{label}: feature maps are shown of hyperiqa and smart_iqa models")
    rows = []
    with torch.no_grad():
        for index in indices:
            record = images.records[index]
            resized = model.protocol.resized(to_tensor(images.read(index), device).unsqueeze(0))
            corner = model.protocol.corners(*resized.shape[-2:])[:1]
            stages = model.trunk(model.normalise(model.protocol.patches(resized, corner)))
            for number, stage in enumerate(stages, start=1):
                grid = stage[0].abs().mean(dim=0).cpu().double()
                rows.append(
                    Feature(
                        label,
                        record.image_id,
                        record.mos,
                        number,
                        grid.shape[0],
                        grid.shape[1],
                        grid.flatten().tolist(),
                    )
                )
    return make_frame("features", rows)


def by_quality(images: ImageSet, count: int) -> list[int]:
    """Return the places of `count` images spread over the labels, the lowest and the highest among them."""
    order = sorted(range(len(images.records)), key=lambda i: (images.records[i].mos, i))
    if count == 1 or len(order) < 2:
        return order[:1]
    count = min(count, len(order))
    return [order[round(k * (len(order) - 1) / (count - 1))] for k in range(count)]


def image_batches(images: ImageSet, batch: int, device: str) -> Iterator[Tensor]:
    """Yield an image set as batches (B, 3, H, W) in [0, 1], in its own order."""
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
    frame = FRAMES["diagnostics"].arrow
    columns = frame.remove(frame.get_field_index("model"))  # it stands in the metadata, once
    schema = columns.with_metadata({"schema_version": str(SCHEMA_VERSION), **dict(context)})
    return write_parquet(path, pa.Table.from_pylist([row._asdict() for row in rows], schema))
