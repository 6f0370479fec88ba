"""`iqa-harness demo`: the whole way, from photographs to a leaderboard."""

from __future__ import annotations

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    CacheOption,
    DeviceOption,
    QuietOption,
    StoreOption,
    ThreadsOption,
)
from iqa_harness.cli.printing import code_of, print_run


def demo(
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    quiet: QuietOption = False,
) -> None:
    """Make the embedded data, train the demo models, run the demo suite, print and write the report.

    Everything is kept: a second call finds data, checkpoints and cells in place and ends in seconds.
    """
    from iqa_harness.api.demo import demo as run_demo

    done = run_demo(store=store, device=device, threads=threads, cache=cache, progress=not quiet)
    print_run(done)
    raise typer.Exit(code_of(done))
