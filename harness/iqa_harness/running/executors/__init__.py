"""Where cells are computed: this process, others on this machine, a Ray cluster, a Slurm queue.

All of them take the same tasks and give the same rows; see `task.Executor`, the seam between them.
"""

from iqa_harness.running.executors.inline import Inline
from iqa_harness.running.task import CellReport, Executor, Job, Outcome, Place, Task, tasks_of

__all__ = ["CellReport", "Executor", "Inline", "Job", "Outcome", "Place", "Task", "tasks_of"]
