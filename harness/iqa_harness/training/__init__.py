"""Training of the models under test: settings here, the loop in `iqa_harness.training.loop`.

Importing this package loads no torch, so that the command line can list presets at once.
"""

from iqa_harness.training.config import (
    TrainConfig,
    list_presets,
    load_preset,
    load_train_config,
)

__all__ = ["TrainConfig", "list_presets", "load_preset", "load_train_config"]
