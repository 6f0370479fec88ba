"""A device that is not there: tensors that live on `meta`, computed on the CPU, and mix with nothing else.

What PyTorch refuses on a machine with a GPU is refused here: an operator on tensors of two devices, but for
numbers (no dimensions), copies between devices and indices, which it allows. It counts what a host would have
to wait for, and what it sends.
"""

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
_COPIES = ("aten::copy_", "aten::_to_copy")
_ASKING = (
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::is_nonzero",
    "aten::bincount", "aten::repeat_interleave", "aten::_unique", "aten::_unique2", "aten::unique_dim",
    "aten::unique_consecutive",
)  # fmt: skip
"""Operators whose result, or the shape of it, the host must know."""

waits: Counter[str] = Counter()
"""What the host had to wait for since the device was last entered, by operator."""
sent: Counter[str] = Counter()
"""What it copied to the device since then, waited for or not."""


class Away(torch.Tensor):
    """A tensor on the device, holding its numbers on the CPU."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=DEVICE, requires_grad=False,
        )  # fmt: skip

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})


def _compute(function, args, kwargs):
    name = function._schema.name
    tensors = list(_tensors((*args, *kwargs.values())))
    away = [tensor for tensor in tensors if isinstance(tensor, Away)]
    near = [tensor for tensor in tensors if not isinstance(tensor, Away)]
    if away and name in _INDEXING:
        near = [args[2]] if len(args) > 2 and not isinstance(args[2], Away) else []
    if away and name not in _COPIES and any(tensor.dim() for tensor in near):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device")
    asked = kwargs.get("device")
    there = bool(away) if asked is None else torch.device(asked).type == DEVICE.type
    if name == "aten::copy_":
        there = isinstance(args[0], Away)
    _count(name, args, kwargs, bool(away), there)
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = function(*_held(args), **{name: _held(value) for name, value in kwargs.items()})
    if function._schema.is_mutable and name.endswith("_"):
        return args[0]
    if not there:
        return result
    if isinstance(result, torch.Tensor):
        return Away(result)
    return tree_map(lambda leaf: Away(leaf) if isinstance(leaf, torch.Tensor) else leaf, result)


def _tensors(values):
    """Yield the tensors among arguments of an operator, which nest in lists only."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _held(value):
    """Return arguments with the numbers of what is on the device; `tree_map` takes four times as long."""
    if isinstance(value, Away):
        return value.held
    return type(value)(map(_held, value)) if isinstance(value, (list, tuple)) else value


def _count(name, args, kwargs, from_away, to_away):
    """Count a read; a copy to the device, and a wait for one that is not `non_blocking`; a mask as index."""
    if name in _COPIES:
        source = args[1] if name == "aten::copy_" else args[0]
        arrives, leaves = to_away and not isinstance(source, Away), isinstance(source, Away) and not to_away
        blocking = not (kwargs.get("non_blocking") or (name == "aten::copy_" and args[2:] == (True,)))
        sent[name] += arrives
        waits[name] += leaves or (arrives and blocking)
    elif from_away:
        indices = args[1] if name in _INDEXING else ()
        masks = any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in indices)
        waits[name] += name in _ASKING or masks


class Accelerator(TorchDispatchMode):
    """While it is on, tensors can be made on and moved to the device."""

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # nothing here is compiled, and each operator would ask the compiler to leave it alone

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})

    def __enter__(self):
        waits.clear()
        sent.clear()
        self.literals = _Literals()
        self.literals.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.literals.__exit__(*error)


class _Literals(TorchFunctionMode):
    """Numbers written in the code reach the device by a copy; `torch.tensor` hides it from operators."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.Tensor.new_tensor:
            like, *rest = args
            return torch.tensor(*rest, dtype=like.dtype).to(like.device)
        if function is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == DEVICE.type:
            del kwargs["device"]
            return torch.tensor(*args, **kwargs).to(DEVICE)
        return function(*args, **kwargs)


def away(tensor):
    """Return a tensor on the device."""
    return Away(tensor)


def home(tensor):
    """Return the numbers of a tensor on the device."""
    return tensor.held
