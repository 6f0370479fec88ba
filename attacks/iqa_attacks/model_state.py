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
    before = _state(model)
    yield
    now = _state(model)
    changed = [what for what, held in before.items() if not _equal(now.get(what, held), held)]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise AttackFailed(
            f"{model.spec.name} changes itself while it scores ({', '.join(changed[:3])}{more}): a score "
            "would depend on those before; predict() must leave modules and buffers alone"
        )


def _state(model: nn.Module) -> dict[str, object]:
    """Return what of a model must not change: modes, versions of weights, values of stored buffers."""
    weights = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    stored = {name: held for name, held in model.state_dict().items() if name not in weights}
    return {
        **{f"mode of {name}": part.training for name, part in model.named_modules()},
        # In-place changes count a tensor's version up; a copy of all weights would cost too much.
        **{name: (w._version, w.requires_grad) for name, w in model.named_parameters()},
        **{name: held.clone() for name, held in stored.items() if isinstance(held, Tensor)},
    }


def _equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool(torch.equal(a, b))
    return a == b
