"""Passes recorded once and played again: a CUDA graph of scores and input gradients for each shape.

A pass of a small network is hundreds of kernels, each of which the processor has to start; played from a
recording, a pass is one start. What is recorded are kernels and addresses, so a recording reads its images
from a place of its own, and what it wrote is copied out. Numbers that a pass draws or reads on the processor
would be recorded as they were: stochastic models have no recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Compute = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps images (B, C, H, W) to their scores (B,) and gradients (B, C, H, W), without a wait for the device."""

FROM = 8
"""A shape is recorded when it is met so often: recording takes as long as some ten passes."""
MOST = 48
"""Recordings of one model; further shapes are computed anew each time."""
WARM_UPS = 2
"""Passes on the stream of the recording before it: libraries choose kernels and make room in the first."""
SAME = 1e-3
"""Largest relative difference (scores: largest; gradients: L1) of a recording from the pass itself on other
images. Rounding gives less than 1e-4; a number that was frozen in gives more."""
OWN = 3
"""That many times the difference of two passes on the same images is allowed as well: some kernels add in an
order of their own each time."""

_WAITING = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2",
    "aten::unique_dim", "aten::unique_consecutive", "aten::bincount", "aten::repeat_interleave",
}  # fmt: skip
"""Operators whose result, or its shape, the processor must know at once."""

_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
"""Those that wait if an index is a mask."""


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    images: Tensor
    """What it reads."""
    scores: Tensor
    """What it writes, and so for the gradients."""
    gradients: Tensor


class Graphs:
    """The recordings of one model's passes, each made when its shape has been met `FROM` times."""

    def __init__(self) -> None:
        self._met: dict[tuple[torch.Size, torch.dtype, torch.device], int] = {}
        self._recorded: dict[tuple[torch.Size, torch.dtype, torch.device], _Recorded | None] = {}
        self._pool: Any = None
        """Memory that all recordings share: one plays at a time, and its results are copied out at once."""

    def run(self, compute: Compute, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `compute` says of images, from a recording where there is one.

        A shape that cannot be recorded, or whose recording says something else, is computed anew each time,
        and so is everything on devices without CUDA.

        Args:
            compute: always the same for one object of this class.
            images: (B, C, H, W).
        """
        if images.device.type != "cuda":
            return compute(images)
        key = (images.shape, images.dtype, images.device)
        if key not in self._recorded:
            self._met[key] = self._met.get(key, 0) + 1
            if self._met[key] < FROM or len(self._recorded) >= MOST:
                return compute(images)
            self._recorded[key] = self._record(compute, images)
        recorded = self._recorded[key]
        return compute(images) if recorded is None else _played(recorded, images)

    def _record(self, compute: Compute, images: Tensor) -> _Recorded | None:
        """Record a pass; None where that fails, and then everything is as it was before."""
        before = torch.cuda.current_stream(images.device)
        try:
            with _NoWaits(), _NoLiterals():
                compute(images)
            return self._recording(compute, images)
        except RuntimeError:
            # Leaving a recording that failed may raise before the stream is put back.
            torch.cuda.set_stream(before)
            torch.cuda.synchronize(images.device)
            return None

    def _recording(self, compute: Compute, images: Tensor) -> _Recorded | None:
        device = images.device
        with torch.cuda.device(device):
            static = images.clone()
            aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):
                for _ in range(WARM_UPS):
                    compute(static)
            torch.cuda.current_stream(device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads may move images meanwhile: only this one's calls are part of the recording.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                scores, gradients = compute(static)
            recorded = _Recorded(graph, static, scores, gradients)
            other = images.flip(-1)
            again, anew = compute(other), compute(other)
            same = _apart(_played(recorded, other), anew) <= max(SAME, OWN * _apart(again, anew))
        if not same:
            return None
        self._pool = graph.pool()
        return recorded


def _played(recorded: _Recorded, images: Tensor) -> tuple[Tensor, Tensor]:
    recorded.images.copy_(images)
    recorded.graph.replay()
    return recorded.scores.clone(), recorded.gradients.clone()


def _apart(some: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]) -> float:
    """Return the larger relative difference of two results, of scores (largest) and of gradients (L1)."""
    (scores, gradients), (scores2, gradients2) = (tuple(t.double() for t in each) for each in (some, others))
    tiny = torch.finfo(torch.float64).tiny
    of_scores = (scores - scores2).abs().max() / scores2.abs().max().clamp_min(tiny)
    of_gradients = (gradients - gradients2).abs().sum() / gradients2.abs().sum().clamp_min(tiny)
    return float(torch.maximum(of_scores, of_gradients))


class _NoLiterals(TorchFunctionMode):
    """Refuses numbers written in the code that are sent to the device; operators do not show them."""

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = function(*args, **(kwargs or {}))
        written = function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
        if written and isinstance(result, Tensor) and result.device.type != "cpu":
            raise RuntimeError(f"{function.__name__} sends numbers to the device")
        return result


class _NoWaits(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch types neither of the two
    """Refuses what cannot be recorded, before a recording is begun: one that fails leaves traces."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        function: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        name = function._schema.name
        if name in _WAITING or (name in _INDEXING and _masks(args[1])):
            raise RuntimeError(f"{name} waits for the device")
        result = function(*args, **(kwargs or {}))
        if name in ("aten::_to_copy", "aten::copy_"):
            ends = {each.device.type for each in (*args[:2], result) if isinstance(each, Tensor)}
            if len(ends) > 1:
                raise RuntimeError(f"{name} moves numbers between devices")
        return result


def _masks(indices: object) -> bool:
    assert isinstance(indices, list | tuple)  # noqa: S101 - what the operator takes
    return any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in indices)
