"""In this process, one task after the other: the default, and what all others must equal."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from iqa_harness.running.task import Job, Outcome, Task


class Inline:
    """Runs tasks where it is called."""

    name = "inline"

    def run(self, job: Job, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
        """Yield the outcomes in order."""
        return (job.here(task) for task in tasks)
