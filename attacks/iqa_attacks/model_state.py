"""What an attack relies on about a model: its modes, and that scoring leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from iqa_attacks.errors import AttackError, AttackFailed
from iqa_models import QualityModel


def check_modes(model: QualityModel) -> None:
    """Refuse a model of which a part is in training mode: batch norm would learn from the attacked images.

    A stochastic model may keep parts without state of their own in training mode, such as dropout.

    Raises:
        AttackError: the model or a part of it is in training mode, or was made under inference mode.
    """
    name = model.spec.name
    if model.training:
        raise AttackError(f"{name} is in training mode; call .eval() first")
    for where, part in model.named_modules():
        stateless = next(part.buffers(), None) is None and next(part.parameters(), None) is None
        if part.training and not (model.is_stochastic and stateless):
            raise AttackError(
                f"{name}: its part {where!r} ({type(part).__name__}) is in training mode; call .eval() on "
                "the model, last of all"
            )
    if any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers())):
        raise AttackError(
            f"{name} was made under torch.inference_mode(), so nothing can be differentiated; make it outside"
        )


@contextmanager
def left_as_it_was(model: QualityModel) -> Iterator[None]:
    """Check that nothing done inside changes the model's weights, stored buffers or modes.

    Raises:
        AttackFailed: the model changes itself, so that a score depends on what it has scored before.
    """
    before = _State(model)
    yield
    changed = before.changes(model)
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise AttackFailed(
            f"{model.spec.name} changes itself while it scores ({', '.join(changed[:3])}{more}): a score "
            "would depend on those before; predict() must leave modules and buffers alone"
        )


class _State:
    """What of a model must not change: values of buffers it would store, versions of weights, modes."""

    def __init__(self, model: nn.Module) -> None:
        self.modes = {name: part.training for name, part in model.named_modules()}
        # In-place changes count a tensor's version up; a copy of all weights would cost too much.
        self.weights = {name: (w._version, w.requires_grad) for name, w in model.named_parameters()}
        self.buffers = {name: tensor.clone() for name, tensor in _stored_buffers(model)}

    def changes(self, model: nn.Module) -> list[str]:
        now = _State(model)
        return [
            *(f"mode of {name}" for name, mode in self.modes.items() if now.modes.get(name, mode) != mode),
            *(name for name, held in self.weights.items() if now.weights.get(name, held) != held),
            *(name for name, held in self.buffers.items() if not _equal(now.buffers.get(name, held), held)),
        ]


def _stored_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    weights = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return (
        (name, tensor)
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, Tensor) and name not in weights
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a, b))
