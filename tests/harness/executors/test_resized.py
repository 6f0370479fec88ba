"""A set that is resized on reading, in workers."""

import pytest

from iqa_harness.cells.plan import plan
from iqa_harness.data.files.resized import ResizedImageSet
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.executors import Place
from iqa_harness.running.executors.processes import Processes
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_results import ResultStore


@pytest.mark.slow
def test_workers_resize_as_the_driver_does(tmp_path, csv_set, suite, rows, entrants):
    """Rows of a resized set are bit-equal in a worker process, and not those of the set itself."""
    found = {}
    for name, images, executor in (
        ("here", ResizedImageSet(csv_set, "12x20"), None),
        ("there", ResizedImageSet(csv_set, "12x20"), Processes((Place("cpu", 1),))),
        ("whole", csv_set, None),
    ):
        work = plan(suite, entrants, images)
        store = ResultStore(tmp_path / name)
        manifest = run_suite(
            work, entrants, RunConfig("r", "", only=("clean",)), store, Runtime(), executor=executor
        )
        done = manifest.model_copy(update={"cells": [c for c in manifest.cells if c.status == "done"]})
        found[name] = rows(store, done)
    assert found["there"].equals(found["here"])
    scores = [found[name].column("clean_score").to_pylist() for name in ("here", "whole")]
    assert len(scores[0]) == len(scores[1]) == 32
    assert scores[0] != scores[1]
