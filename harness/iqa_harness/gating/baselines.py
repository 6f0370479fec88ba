"""From a run to a baseline: the scores of every image that a gate compares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from iqa_harness.errors import RunError
from iqa_harness.machine.tuning import PLAIN, choices_of, known
from iqa_harness.measures.correlation import METRICS
from iqa_harness.measures.model_scores import Judged, attack_vectors, judge
from iqa_harness.tables.robustness import ENDS, RobustnessTable, model_rows
from iqa_results import BASELINE_SCHEMA, Baseline, BaselineModel, BaselineScore, ResultStore, RunManifest

SHARED = {"run", "suite", "suite_sha256", "main_epsilon", "suite_min", "seed"}
"""What a baseline says as the manifest does."""


class Standpoint(NamedTuple):
    """One side of a comparison: a baseline, or a run seen as one."""

    record: Baseline
    scores: pd.DataFrame
    """Columns of BASELINE_COLUMNS."""


def standpoint(store: ResultStore, manifest: RunManifest, tables: RobustnessTable, name: str) -> Standpoint:
    """Return a run as one side of a comparison.

    Args:
        store: where its parts are.
        manifest: the run's.
        tables: its tables.
        name: what to call it.

    Raises:
        RunError: the run is not complete: what is missing would be compared with nothing.
    """
    if manifest.status != "complete":
        left = sum(cell.status != "done" for cell in manifest.cells)
        raise RunError(
            f"run {manifest.run!r} is {manifest.status}: {left} of {len(manifest.cells)} cells are not done; "
            "finish it before it is compared"
        )
    verdicts = {row["model"]: (row["verdict"], row["flags"]) for row in tables.table.to_pylist()}
    intervals = tables.intervals.to_pandas()
    rows: list[BaselineScore] = []
    for model in manifest.models:
        frame = model_rows(store, manifest, model.name)
        clean = frame[(frame["attack"] == "clean") & (frame["split"] == manifest.data.split)]
        judged = judge(model.name, clean.sort_values("position"), frame, manifest, resamples=1)
        rows += _rows(judged, frame, manifest, intervals[intervals["model"] == model.name])
    record = Baseline(
        name=name,
        **manifest.model_dump(include=SHARED),
        provenance=manifest.provenance,
        data=manifest.data.name,
        data_sha256=manifest.data.sha256,
        split=manifest.data.split,
        images=manifest.data.images,
        label=manifest.data.label,
        models=tuple(
            BaselineModel(
                name=m.name,
                sha256=m.sha256,
                verdict=verdicts[m.name][0],
                flags=tuple(f for f in verdicts[m.name][1].split(", ") if f),
                gradients=(known(choices_of(manifest), m.sha256) or PLAIN).words,
            )
            for m in manifest.models
        ),
    )
    return Standpoint(record, pd.DataFrame(rows, columns=BASELINE_SCHEMA.names))


def _rows(
    judged: Judged, frame: pd.DataFrame, manifest: RunManifest, intervals: pd.DataFrame
) -> Iterator[BaselineScore]:
    references = judged.clean_rows["reference"].tolist()

    def rows(row: str, attack: str, objective: str, norm: str, epsilon: float, score: Any) -> Iterator[Any]:
        columns = (judged.ids, references, judged.mos, score, judged.mapped(score, "plcc"))
        for of_image in zip(*columns, strict=True):
            yield BaselineScore(judged.model, row, attack, objective, norm, epsilon, *of_image)

    yield from rows("clean", "", "", "none", 0.0, judged.clean)
    attacked, _ = attack_vectors(frame[frame["attack"] != "clean"], judged.ids)
    for key, found in attacked.items():
        if found.final and key.epsilon == manifest.main_epsilon and key.objective not in ENDS:
            yield from rows("attack", key.attack, key.objective, key.norm, key.epsilon, found.score)
    for (norm, epsilon), at in intervals.groupby(["norm", "epsilon"]):
        if epsilon == manifest.main_epsilon:
            ordered = at.set_index("image_id").loc[list(judged.ids)]
            for metric in METRICS:
                composed = ordered[f"composed_{metric}"].to_numpy(dtype=float)
                yield from rows("composed", "", metric, str(norm), manifest.main_epsilon, composed)
