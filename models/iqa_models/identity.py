"""What a model is, as one hash: its weights, and whatever else of it decides a score.

`weights_sha256` is a model's part of a cell's key: a stored result may be shown as a model's own only
while the hash is the same. The tensors of `state_dict()` always count. What a model holds beside them
(plain attributes, lists, buffers that are not saved, hooks, the graph of a TorchScript file, values its
code reads from its module) counts wherever there is some beyond the card and the weights. A model that is
still as a builder of this package left it has none: all options of such a builder stand on the card, and
the code is named by the package's version. Of every other model all of it counts.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import logging
import re
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iqa_models.errors import BadModelState
from iqa_models.quality_model import QualityModel

OURS = frozenset({"iqa_attacks", "iqa_harness", "iqa_models", "iqa_reports", "iqa_results", "iqa_suites"})
"""Packages of this project."""

VERSIONED = frozenset(
    {*OURS, "torch", "timm", "torchvision", "pyiqa", "numpy", "pydantic", *sys.stdlib_module_names}
)
"""Packages a run names by their versions, or that come with Python: their code is no model's own."""

_BOOKKEEPING = frozenset({*vars(nn.Module()), "_compiled_call_impl", "_as_built"})
_ANNOTATE = ("__annotate__", "__annotate_func__")
"""Functions that Python 3.14 puts into a class to make its annotations, which decide no score."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_PLAIN = (
    type(None), bool, int, float, complex, str, bytes, type(...), range, slice,
    torch.dtype, torch.layout, torch.memory_format, torch.Size,
)  # fmt: skip
_NO_STATE = (
    types.ModuleType, logging.Logger, weakref.ref, torch.device,
    type(threading.Lock()), type(threading.RLock()),
)  # fmt: skip


def weights_sha256(model: QualityModel) -> str:
    """Return the sha256 of all of a model's state that its card does not hold.

    It does not depend on device, memory layout, file or mode (training or not). Without state beyond the
    card and `state_dict()` it is `state_sha256` of the latter. Take it before a model is used: one that
    counts its calls or fills a cache has another state afterwards.

    Raises:
        BadModelState: part of the state has no bytes to hash; the message names it.
    """
    tensors, others = split_state(model)
    weights = state_sha256(tensors, model.spec.name)
    beyond = _Walk(model, others)
    if beyond.sha256 == vars(model).get("_as_built"):
        return weights
    return hashlib.sha256(f"{weights}\n{beyond.sha256}".encode()).hexdigest()


def mark_as_built(model: QualityModel) -> None:
    """Note that what a model holds beside its weights follows from its card: the builder is ours.

    A model on the meta device, as one is built to count its cost, has nothing to note.
    """
    if any(tensor.is_meta for tensor in model.buffers()):
        return
    vars(model)["_as_built"] = _Walk(model, split_state(model)[1]).sha256


def makers_of(model: QualityModel) -> list[object]:
    """Return the classes and functions that make a model and are not `VERSIONED`, as they are met."""
    return list(_Walk(model, split_state(model)[1]).makers)


def split_state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Return the tensors of a module's `state_dict`, and what else its modules save (`get_extra_state`)."""
    state: Mapping[str, object] = model.state_dict()
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in state.items() if name not in tensors}


def state_sha256(tensors: Mapping[str, Tensor], owner: str = "state") -> str:
    """Return the sha256 of tensors: names, types, shapes and values, sorted by name.

    Args:
        tensors: of any device, layout or quantisation.
        owner: whose they are, for the error.

    Raises:
        BadModelState: one has no values (lazy, or on the meta device).
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        try:
            for part in _bytes_of(name, tensor):
                digest.update(part)
        except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
            raise BadModelState(_unreadable(owner, name, tensor)) from error
    return digest.hexdigest()


def _bytes_of(name: str, tensor: Tensor) -> Iterator[Any]:
    """Yield a tensor as bytes: a header, then the values in logical order."""
    tensor = tensor.detach()
    if tensor.is_meta or nn.parameter.is_lazy(tensor):
        raise ValueError("no values")
    if tensor.is_quantized:
        yield f"{tensor.qscheme()}\0".encode()
        if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            yield f"{tensor.q_scale()!r}\0{tensor.q_zero_point()}\0".encode()
        else:
            yield from _bytes_of("scales", tensor.q_per_channel_scales())
            yield from _bytes_of("zero_points", tensor.q_per_channel_zero_points())
        tensor = tensor.int_repr()
    if tensor.layout is not torch.strided:
        yield f"{tensor.layout}\0".encode()
        tensor = tensor.to_dense()
    plain = tensor.cpu().resolve_conj().resolve_neg()
    yield f"{name}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode()
    yield plain.reshape(-1).view(torch.uint8).numpy()


def _unreadable(owner: str, where: str, value: object) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if isinstance(value, Tensor) and nn.parameter.is_lazy(value):
        return f"model {owner!r}: {where} is lazy and has no values yet; score one image before it is used"
    if isinstance(value, Tensor) and value.is_meta:
        return f"model {owner!r}: {where} is on the meta device and has no values; load its weights first"
    return (
        f"model {owner!r}: {where} ({kind}) cannot be read, so that results of a changed model could not be "
        "told from its own; hold what decides a score in tensors, numbers, texts, lists or dicts"
    )


class _Walk:
    """Feeds one digest with what a model holds, each object once, and notes whose code it met.

    That is the whole model but its card and the tensors of its `state_dict`; `others` is what else that has.
    """

    def __init__(self, model: QualityModel, others: Mapping[str, object]) -> None:
        self.model = model
        self.makers: dict[object, None] = {}
        self._digest = hashlib.sha256()
        self._folders: dict[str, None] = {}
        try:
            # Met again in a list, a module or weight that is saved is only named.
            saved = (*self.model.named_modules(), *self.model.state_dict(keep_vars=True).items())
            # By id; the object is kept, so that its id is not given to another.
            self._seen: dict[int, tuple[object, str]] = {
                id(item): (item, f"saved {name}") for name, item in saved
            }
            for name, module in self.model.named_modules():
                self._module(module, name, saved=True)
            self._value(others, "state_dict()")
        except RecursionError as error:
            raise BadModelState(_unreadable(self.model.spec.name, "state", self.model)) from error
        self.sha256 = self._digest.hexdigest()

    def _put(self, *parts: str | bytes) -> None:
        for part in parts:
            content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            self._digest.update(f"{len(content)}:".encode())
            self._digest.update(content)

    def _module(self, module: nn.Module, where: str, *, saved: bool) -> None:
        """Feed a module; if `saved`, its weights and its modules are fed elsewhere."""
        self._put("module", where)
        self._class(type(module), where)
        space = vars(module)
        if isinstance(module, torch.jit.ScriptModule):
            self._script(module, where)
        elif isinstance(module, torch.fx.GraphModule):
            self._put(module.code)
        elif "_orig_mod" not in space.get("_modules", {}):  # torch.compile's wrapper holds nothing of its own
            card = {"spec"} if module is self.model else set()
            self._named(((k, space[k]) for k in sorted(space.keys() - _BOOKKEEPING - card)), where)
        for hooks in _HOOKS:
            self._named(((hooks, hook) for hook in space.get(hooks, {}).values()), where)
        buffers = ((k, v) for k, v in module._buffers.items() if not (saved and self._is_saved(module, k)))
        self._named(buffers, where)
        if not saved:
            self._named(module._parameters.items(), where)
            self._named(module._modules.items(), where)

    def _is_saved(self, module: nn.Module, buffer: str) -> bool:
        if module is self.model and buffer in ("_mean", "_std"):
            card = torch.tensor(getattr(self.model.spec, buffer[1:]), device="cpu").view(1, 3, 1, 1)
            held = module._buffers[buffer]
            return held is not None and torch.equal(held.cpu(), card.to(held.dtype))
        return buffer not in module._non_persistent_buffers_set

    def _named(self, items: Iterable[tuple[str, object]], where: str) -> None:
        for name, value in items:
            self._put(name)
            self._value(value, f"{where}.{name}" if where else name)

    def _value(self, value: Any, where: str) -> None:
        if isinstance(value, str | PurePath):
            self._text(value)
        elif isinstance(value, _PLAIN) and not isinstance(value, enum.Enum):
            self._put(type(value).__name__, repr(value))
        elif isinstance(value, _NO_STATE):
            self._put(type(value).__name__)
        elif id(value) in self._seen:
            self._put("again", self._seen[id(value)][1])
        else:
            self._seen[id(value)] = (value, f"number {len(self._seen)}")
            self._held(value, where)

    def _text(self, value: str | PurePath) -> None:
        # The folder a user's code lies in is not part of the model: a worker has a copy elsewhere.
        text = str(value)
        for folder in self._folders:
            text = text.replace(folder, "")
        self._put("text", text)

    def _held(self, value: Any, where: str) -> None:
        """Feed something that holds other things."""
        items = _items(value)
        if items is not None:
            self._put(type(value).__name__, str(len(items)))
            for i, item in enumerate(items):
                self._value(item, f"{where}[{i}]")
        elif isinstance(value, Tensor):
            self._put(state_sha256({where: value}, self.model.spec.name))
        elif isinstance(value, nn.Module):
            self._module(value, where, saved=False)
        elif isinstance(value, np.ndarray | np.generic) and value.dtype != object:
            self._put(str(value.dtype), str(value.shape), value.tobytes())
        elif isinstance(value, torch.Generator):
            self._put(value.get_state().numpy().tobytes())
        else:
            self._code(value, where)

    def _code(self, value: Any, where: str) -> None:
        """Feed something that can be called; if it is none, whatever it holds."""
        if isinstance(value, type):
            self._class(value, where)
        elif isinstance(value, types.FunctionType):
            self._maker(value)
            self._function(value, where)
        elif isinstance(value, types.MethodType):
            self._value((value.__func__, value.__self__), where)
        elif isinstance(value, functools.partial):
            self._value((value.func, value.args, value.keywords), where)
        elif isinstance(value, torch.jit.ScriptFunction):
            self._graph(value, where)
        else:
            self._object(value, where)

    def _object(self, value: Any, where: str) -> None:
        """Feed any other object as pickling would see it; nothing is written and nothing is loaded."""
        try:
            state = value.__getstate__() if isinstance(value, torch.ScriptObject) else value.__reduce_ex__(2)
        except Exception as error:
            raise BadModelState(_unreadable(self.model.spec.name, where, value)) from error
        self._class(type(value), where)
        if isinstance(state, tuple):
            # The lists and dicts among the items come as iterators.
            state = tuple(list(part) if isinstance(part, Iterator) else part for part in state)
        self._value(state, where)

    def _class(self, kind: type, where: str) -> None:
        """Feed a class by its name; a user's own with the data and functions in it too."""
        self._put(
            "class", f"{kind.__module__}.{kind.__qualname__}" if _is_versioned(kind) else kind.__qualname__
        )
        for base in kind.__mro__:
            if base in self.makers or _is_versioned(base):
                continue
            self._maker(base)
            for name, member in sorted(vars(base).items()):
                if name in _ANNOTATE:
                    continue
                function = inspect.unwrap(
                    getattr(member, "__func__", getattr(member, "fget", member)) or member
                )
                if isinstance(function, types.FunctionType):
                    self._function(function, f"{where}.{name}")
                elif not name.startswith("__") and not name.startswith("_abc_") and not callable(member):
                    self._loosely(member, f"{where}.{name}")

    def _maker(self, maker: Any) -> None:
        if maker in self.makers or _is_versioned(maker):
            return
        self.makers[maker] = None
        file = getattr(sys.modules.get(maker.__module__), "__file__", None)
        if file:
            self._folders[str(Path(file).parent)] = None

    def _function(self, function: types.FunctionType, where: str) -> None:
        """Feed a function: its name, what it has bound, and what it reads from its module."""
        self._put("function", function.__qualname__)
        if _is_versioned(function):
            self._put(function.__module__)
        elif not _has_text(function):
            self._put(function.__code__.co_code, repr(function.__code__.co_names))
        self._value(function.__defaults__, where)
        self._value(function.__kwdefaults__, where)
        for cell in function.__closure__ or ():
            self._loosely(_content(cell), f"a value {where} encloses")
        if _is_versioned(function):
            return
        for name in sorted(_names(function.__code__)):
            if name in function.__globals__:
                self._put(name)
                self._loosely(function.__globals__[name], f"{function.__module__}.{name}")

    def _loosely(self, value: Any, where: str) -> None:
        """Feed what code refers to: data, and code of the user's own; of anything else only its type."""
        kind = type(value)
        data = isinstance(
            value, (*_PLAIN, PurePath, Tensor, nn.Module, np.ndarray, np.generic, functools.partial)
        )
        held = isinstance(value, list | tuple | set | frozenset | dict | deque | types.MethodType)
        code = isinstance(value, type | types.FunctionType) and not _is_versioned(value)
        if data or held or code or (not isinstance(value, type) and not _is_versioned(kind)):
            self._value(value, where)
        else:
            self._put(getattr(value, "__qualname__", kind.__qualname__))

    def _script(self, module: Any, where: str) -> None:
        """Feed a TorchScript module: of each method the code and the attributes it reads."""
        for method in sorted(module._c._method_names()):
            compiled = module._c._get_method(method)
            self._put(method)
            self._graph(compiled, where)
            for name in sorted(set(re.findall(r"\bself\.(\w+)", compiled.code))):
                value = getattr(module, name, None)
                if not isinstance(value, nn.Module) and not callable(value):
                    self._put(name)
                    self._value(value, f"{where}.{name}")

    def _graph(self, compiled: Any, where: str) -> None:
        """Feed a TorchScript method or function: its code, and the tensors that stand in it."""
        self._put(compiled.code)
        for node in compiled.graph.findAllNodes("prim::Constant"):
            if node.hasAttribute("value") and node.kindOf("value") == "t":
                self._value(node.t("value"), f"a constant of {where}")


def _items(value: object) -> list[Any] | None:
    """Return what a container holds, None if it is none."""
    if isinstance(value, Mapping):
        return [part for pair in value.items() for part in pair]
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    return list(value) if isinstance(value, list | tuple | deque) else None


def _is_versioned(maker: Any) -> bool:
    module = getattr(maker, "__module__", None)
    if module is None:  # of C code, or of a function that was made in no module
        return not isinstance(maker, types.FunctionType)
    return str(module).partition(".")[0] in VERSIONED


def _has_text(function: Callable[..., Any]) -> bool:
    try:
        return inspect.getsourcefile(function) is not None
    except TypeError:
        return False


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


def _names(code: types.CodeType) -> set[str]:
    """Return the names a function's code refers to, those of the functions inside it too."""
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*(_names(const) for const in inner))
