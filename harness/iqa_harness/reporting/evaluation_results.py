"""A run's values as Hugging Face reads evaluation results: metadata of a page, or a file beside it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from iqa_reports.text import labels, radius
from iqa_results import TABLE, Estimate, RunManifest, write_whole

if TYPE_CHECKING:
    import pyarrow as pa

_METRICS = {"srocc": "spearmanr", "plcc": "pearsonr"}
"""What the hub calls them."""
_ROWS = ("clean", "suite_min", "composed", "closed_loop")


def write_evaluations(
    manifest: RunManifest, table: pa.Table, folder: Path, benchmark: str | None = None
) -> int:
    """Write a file a model of a run; return their number.

    Args:
        manifest: of the run.
        table: its table.
        folder: where the files go, each named as its model.
        benchmark: as in `hub_entries`; None for a `model_index`.
    """
    for model in manifest.models:
        values = evaluation_values(table, model.name)
        text = (
            hub_entries(manifest, benchmark, values)
            if benchmark
            else model_index(manifest, model.name, values)
        )
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", model.name).lstrip(".")[:80]
        if plain != model.name:  # two names may look alike then
            plain += "-" + hashlib.sha256(model.name.encode()).hexdigest()[:8]
        write_whole(folder / f"{plain}.yaml", text.encode())
    return len(manifest.models)


def evaluation_values(table: pa.Table, model: str) -> list[Estimate]:
    """Return what is told of a model elsewhere: clean values and worst cases, of full strength."""
    return [row for row in TABLE.rows(table) if row.model == model and row.final and row.row in _ROWS]


def model_index(manifest: RunManifest, model: str, values: Sequence[Estimate]) -> str:
    """Return the `model-index` of a model page's metadata as YAML.

    Args:
        manifest: of the run.
        model: its name there.
        values: of `evaluation_values`; those that are undefined are named in comments, and are no entries.
    """
    data = manifest.data
    result = {
        "task": {"type": "image-quality-assessment", "name": "No-reference image quality under attack"},
        "dataset": {
            "type": data.name,
            "name": f"{data.name}, {data.split} split, {data.images} images, {data.label}",
            "split": data.split,
            "args": {"sha256": data.sha256, "label": data.label, "images": data.selection or data.images},
        },
        "metrics": [
            {
                "type": _METRICS[row.metric],
                "value": row.value,
                "name": _name(row),
                "args": _circumstances(manifest, row),
            }
            for row in values
            if row.value is not None
        ],
    }
    index = {"name": model, "results": [result] if result["metrics"] else []}
    return _text({"model-index": [index]}, manifest, values)


def hub_entries(manifest: RunManifest, benchmark: str, values: Sequence[Estimate]) -> str:
    """Return a file of `.eval_results/` as YAML: an entry a value, under a task of a benchmark of the hub.

    Args:
        manifest: of the run.
        benchmark: ORG/NAME of the data set that holds the leaderboard. Its `eval.yaml` is to name the tasks:
            `clean_srocc`, `suite_min_srocc_inf_4_255`, ... (row, metric, norm, radius).
        values: as in `model_index`.
    """
    entries = [
        {
            "dataset": {"id": benchmark, "task_id": _task(row)},
            "value": row.value,
            "date": manifest.ended or manifest.started,
            "notes": "; ".join(f"{name} {value}" for name, value in _circumstances(manifest, row).items()),
        }
        for row in values
        if row.value is not None
    ]
    return _text(entries, manifest, values)


def _name(row: Estimate) -> str:
    if row.row == "clean":
        return f"{row.metric.upper()}, clean"
    return f"{row.metric.upper()}, {row.row}, norm {row.norm}, radius {radius(row.epsilon)}"


def _task(row: Estimate) -> str:
    ball = () if row.row == "clean" else (row.norm, radius(row.epsilon).replace("/", "_"))
    return "_".join((row.row, row.metric, *ball))


def _circumstances(manifest: RunManifest, row: Estimate) -> dict[str, Any]:
    """Return what a number is not to be read without; what does not apply is left out."""
    found = {
        "verdict": row.verdict,
        "flags": row.flags,
        "row": row.row,
        "norm": row.norm,
        "epsilon": row.epsilon,
        "low": row.low,
        "high": row.high,
        "mapping": row.mapping if row.metric == "plcc" else "",
        "suite": manifest.suite,
        "suite_sha256": manifest.suite_sha256,
        "data_sha256": manifest.data.sha256,
        "harness": manifest.provenance.packages.get("iqa-harness", ""),
    }
    return {name: value for name, value in found.items() if value not in ("", None)}


def _text(content: Any, manifest: RunManifest, values: Sequence[Estimate]) -> str:
    comments = [f"run {manifest.run}, {manifest.status}, by iqa-harness; {labels(manifest)}"]
    comments += [f"{_name(row)}: undefined, {row.undefined}" for row in values if row.value is None]
    head = "".join(f"# {' '.join(comment.split())}\n" for comment in comments)
    body: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
    return head + body
