"""Training of the models under test: settings here, the loop in `iqa_harness.training.loop`.

Importing this package loads no torch, so that the command line can list presets at once.
"""

from iqa_harness.training.config import (
    TrainConfig,
    changed,
    documented,
    find_config,
    list_presets,
    load_preset,
    load_train_config,
    read_changes,
)

__all__ = [
    "TrainConfig",
    "changed",
    "documented",
    "find_config",
    "list_presets",
    "load_preset",
    "load_train_config",
    "read_changes",
]
