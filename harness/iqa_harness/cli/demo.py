"""`iqa-harness demo`: the whole way, from photographs to a leaderboard."""

from __future__ import annotations

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    CacheOption,
    DeviceOption,
    StoreOption,
    ThreadsOption,
)
from iqa_harness.entrants.naming import ModelArgument, load_entrant
from iqa_harness.machine.places import require_folder


def demo(
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    cache: CacheOption = None,
) -> None:
    """Make the embedded data, train the demo models, run the demo suite, print and write the report.

    Everything is kept: a second call finds data, checkpoints and cells in place and ends in seconds.
    """
    from iqa_harness.cli.attack import run_and_report
    from iqa_harness.cli.train import demo_presets, train_one, train_side_by_side
    from iqa_harness.training import load_preset

    require_folder(store, "--store")
    from iqa_harness.machine.devices import use_devices

    use_devices([device], threads)
    train_side_by_side(demo_presets(), store, cache)
    folders = [train_one(load_preset(name), store, cache, overwrite=False) for name in demo_presets()]
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
        cache=cache,
        replace=True,
    )
    raise typer.Exit(code)
