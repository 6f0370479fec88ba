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


def demo(
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    cache: CacheOption = None,
) -> None:
    """Make the embedded data, train the demo models, run the demo suite, print and write the report.

    Everything is kept: a second call finds data, checkpoints and cells in place and ends in seconds.
    """
    from iqa_harness.api.attack import attack
    from iqa_harness.api.train import train
    from iqa_harness.cli.attack import code_of
    from iqa_harness.cli.printing import print_run
    from iqa_harness.machine.devices import use_devices
    from iqa_harness.machine.places import require_folder

    require_folder(store, "--store")
    use_devices([device], threads)  # a device that is not there is refused before the training
    folders = train("demo", store=store, cache=cache).folders
    models = {folder.name: folder for folder in folders}
    done = attack("demo", models, store=store, device=device, threads=threads, cache=cache, replace=True)
    print_run(done)
    raise typer.Exit(code_of(done))
