"""How a training is carried out; importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; none of it changes the weights, but for the rounding of another device."""

    device: str = "cpu"
    """Torch device."""
    save_every: int = 200
    """Steps after which the state is saved within an epoch; 0 saves at the ends of epochs only."""
    log_steps: bool = False
    """Whether every step becomes a row of ``steps.csv``."""
    tensorboard: bool = False
    """Whether TensorBoard's event files are written."""
    progress: bool = False
    """Whether to report on stderr."""
    overwrite: bool = False
    """Whether a checkpoint or state of other settings or images is replaced."""
    resume: bool = False
    """Whether a run that cannot go on from a saved state is refused."""
