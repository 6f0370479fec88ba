"""The whole way, from photographs to a leaderboard."""

from __future__ import annotations

from pathlib import Path

from iqa_harness.api.attack import attack
from iqa_harness.api.reading import STORE
from iqa_harness.api.run import Run
from iqa_harness.api.train import train
from iqa_harness.machine.devices import use_devices
from iqa_harness.machine.places import require_folder


def demo(
    *,
    store: str | Path = STORE,
    device: str = "cpu",
    threads: int | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Make the embedded data, train the demo models, run the demo suite on them.

    Everything is kept: a second call finds data, checkpoints and cells in place and ends in seconds.

    Args:
        store: folder of models and results.
        device: torch device of the attacks.
        threads: threads within one operation, torch's own if left out.
        cache: folder of the embedded data.
        progress: show on standard error how far it is.
    """
    require_folder(str(store), "--store")
    use_devices([device], threads)  # a device that is not there is refused before the training
    folders = train("demo", store=store, cache=cache, progress=progress).folders
    models = {folder.name: folder for folder in folders}
    return attack(
        "demo", models, store=store, device=device, threads=threads, cache=cache, replace=True,
        progress=progress,
    )  # fmt: skip
