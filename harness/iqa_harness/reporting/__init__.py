"""What reports are made from: runs read, seeds put together, files of other commands, worst images."""

from iqa_harness.reporting.files import read_inputs
from iqa_harness.reporting.results import results_frame
from iqa_harness.reporting.runs import FoundRun, find_runs, read_run, read_runs

__all__ = ["FoundRun", "find_runs", "read_inputs", "read_run", "read_runs", "results_frame"]
