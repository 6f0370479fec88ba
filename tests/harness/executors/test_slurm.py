"""Jobs through submitit, its executor of local processes in Slurm's place: the rows of one process."""

import pytest

from iqa_harness.running.executors.slurm import Slurm

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("packages_on_path")
def test_jobs_give_the_rows_of_one_process_though_one_is_killed(
    tmp_path, run, rows, entrants, expected, deadly, monkeypatch
):
    """What a killed job left is submitted again; every row is bit-equal."""
    # submitit waits a quarter of a minute for results of a job that was killed: a slow disk is not here.
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)
    entrant, marker = deadly(1)
    jobs = Slurm(tmp_path / "slurm", jobs=1, cluster="local", poll=0.2)
    store, manifest = run(tmp_path / "store", [entrants[0], entrant], jobs)
    assert marker.read_text() == ""
    assert manifest.status == "complete"
    assert rows(store, manifest).equals(expected)
    assert manifest.executor == "slurm"
    assert {w.threads for w in manifest.workers} == {1}
