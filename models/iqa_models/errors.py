"""What can go wrong with a model, as one tree.

ModelError
├── UnknownModel      no model of that name is registered
├── BadModelOption    the builder refuses an option or its value
├── BadModelState     part of a model's state has no values to hash
├── BadInput          images outside the contract (shape, dtype, range, size)
├── BadCheckpoint     a checkpoint that is missing, damaged or of another model
├── MissingWeights    pretrained weights that are neither cached nor reachable
└── HubError          a place of checkpoints that cannot be reached, read or written
"""

from iqa_errors import IQAError


class ModelError(IQAError):
    """Base of everything this package raises for a user's mistake."""


class UnknownModel(ModelError):
    """No model of that name is registered."""


class BadModelOption(ModelError):
    """The model's builder refuses an option or its value."""


class BadModelState(ModelError):
    """Part of a model's state has no values to hash: lazy, on the meta device, or not readable."""


class BadInput(ModelError):
    """Images do not fit the contract of a model under test."""


class BadCheckpoint(ModelError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class MissingWeights(ModelError):
    """Pretrained weights are neither on this machine nor reachable."""


class HubError(ModelError):
    """A place of checkpoints, folder or repository, cannot be reached, read or written."""
