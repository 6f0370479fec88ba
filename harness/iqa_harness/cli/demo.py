"""`iqa-harness demo`: the whole way, from photographs to a leaderboard."""

from __future__ import annotations

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    CacheOption,
    DeviceOption,
    ModelArgument,
    StoreOption,
    ThreadsOption,
    load_entrant,
    set_up_torch,
)
from iqa_harness.cli.outputs import require_folder


def demo(
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    cache: CacheOption = None,
) -> None:
    """Make the embedded data, train the demo models, run the demo suite, print and write the report.

    Everything is kept: a second call finds data, checkpoints and cells in place and ends in seconds.
    """
    from iqa_harness.api.train import train
    from iqa_harness.cli.attack import run_and_report

    require_folder(store, "--store")
    set_up_torch(device, threads)
    folders = train("demo", store=store, cache=cache).folders
    entrants = [load_entrant(ModelArgument(f.name, "", {}, checkpoint=f)) for f in folders]
    code = run_and_report(
        "demo",
        entrants,
        run=None,
        data=None,
        mos_range=None,
        store=store,
        device=device,
        chunk=8,
        max_states=64,
        cache=cache,
        replace=True,
    )
    raise typer.Exit(code)
