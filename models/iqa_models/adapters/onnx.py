"""``onnx:FILE``: a network as ONNX: converted by onnx2torch, or run by onnxruntime as a black box."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from iqa_models.adapters.foreign import ForeignModel, Known, reported, require_file, require_options
from iqa_models.errors import BadModelOption, ModelError
from iqa_models.registry import register_model

WAYS = ("auto", "onnx2torch", "onnxruntime")


@register_model("onnx")
def onnx(of: str, **options: Any) -> ForeignModel:
    """A network as ONNX, as onnx:FILE: one input (B, 3, H, W), one score an image.

    Args:
        of: the file, which is data.
        **options: ``by``, one of `WAYS`: onnx2torch gives gradients, onnxruntime none; ``auto`` takes the
            first that is installed and can; `iqa_models.adapters.foreign.OPTIONS`.
    """
    way, by = f"onnx:{of}", options.get("by", "auto")
    require_options(way, options, ("by",))
    if by not in WAYS:
        raise BadModelOption(f"{way}: by is one of {', '.join(WAYS)}, not {by!r}")
    path = require_file("onnx", of)
    if importlib.util.find_spec("onnx") is None:
        raise ModelError(f"{way}: onnx is not installed; pip install 'iqa-harness[onnx]'")
    files = _files(way, path)
    scorer, note = _opened(way, path, by)
    side, fixed = _input(way, path)
    known = Known(
        f"ONNX file {path.name}", path.name, f"file:{path.name}",
        gradient=None if isinstance(scorer, nn.Module) else False, size=side,
        files=files, notes=note,
    )  # fmt: skip
    one = _OneByOne(scorer) if fixed else scorer
    takes = "tensors" if isinstance(scorer, nn.Module) else "arrays"
    return ForeignModel("onnx", {"of": of, **options}, known, one, takes).eval()  # type: ignore[arg-type]


def _opened(way: str, path: Path, by: str) -> tuple[Any, tuple[str, ...]]:
    """Return a module with gradients or a session without, and what must be said of it."""
    why = ""
    if by != "onnxruntime":
        if importlib.util.find_spec("onnx2torch") is None:
            why = "onnx2torch is not installed"
        else:
            try:
                with reported(way):
                    return importlib.import_module("onnx2torch").convert(str(path)).eval(), ()
            except ModelError as error:
                why = f"onnx2torch cannot convert it ({error})"
        if by == "onnx2torch":
            raise ModelError(f"{way}: {why}; pip install 'iqa-harness[onnx]', or ?by=onnxruntime")
    if importlib.util.find_spec("onnxruntime") is None:
        raise ModelError(
            f"{way}: neither onnx2torch nor onnxruntime can run it; pip install 'iqa-harness[onnx]'"
        )
    return Session(path), ((f"a black box without a gradient: {why}",) if why else ())


def _input(way: str, path: Path) -> tuple[int | None, bool]:
    """Return the only side an ONNX file takes, None for any, and whether it takes one image at a time."""
    with reported(way):
        graph = importlib.import_module("onnx").load(str(path), load_external_data=False).graph
        stored = {each.name for each in graph.initializer}
        (given,) = [each for each in graph.input if each.name not in stored]
        sizes = [axis.dim_value for axis in given.type.tensor_type.shape.dim]
    if len(sizes) != 4 or sizes[1] not in (0, 3):
        raise BadModelOption(f"{way}: its input has the shape {sizes}, not (B, 3, H, W)")
    if sizes[2] != sizes[3]:
        raise BadModelOption(
            f"{way}: takes {sizes[2]} x {sizes[3]} pixels only; export it for squares or any"
        )
    return sizes[2] or None, sizes[0] == 1


def _files(way: str, path: Path) -> tuple[tuple[str, str], ...]:
    """Return names and hashes of an ONNX file and of those beside it that hold its weights."""
    with reported(way):
        proto = importlib.import_module("onnx").load(str(path), load_external_data=False)
        tensors = importlib.import_module("onnx.external_data_helper")._get_all_tensors(proto)
    places = {each.value for tensor in tensors for each in tensor.external_data if each.key == "location"}
    folder = path.resolve().parent
    for place in places:
        file = (folder / place).resolve()
        if not (file.is_relative_to(folder) and file.is_file()):
            raise BadModelOption(f"{way}: its weights are in {place!r}, which is no file beside it")
    files = (path, *(folder / place for place in sorted(places)))
    return tuple((file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files)


class Session:
    """Scores arrays (B, H, W, 3) by onnxruntime."""

    def __init__(self, path: Path) -> None:
        self.path = path
        runtime: Any = importlib.import_module("onnxruntime")
        with reported(f"onnx:{path}"):
            self.session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __reduce__(self) -> tuple[Any, ...]:
        """Name the file; its hash is on the model."""
        return type(self), (self.path,)

    def __deepcopy__(self, memo: Any) -> Session:
        """Share the session: it holds no state."""
        return self

    def __call__(self, images: NDArray[np.float32]) -> NDArray[Any]:
        """Return one score an image."""
        name = self.session.get_inputs()[0].name
        found: NDArray[Any] = self.session.run(None, {name: images.transpose(0, 3, 1, 2).copy()})[0]
        return found.reshape(len(images), -1)[:, 0] if found.size == len(images) else found


class _OneByOne(nn.Module):
    """Asks a scorer that takes one image at a time."""

    def __init__(self, scorer: Any) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, images: Any) -> Any:
        """Score images one after another."""
        parts = [self.scorer(images[i : i + 1]) for i in range(len(images))]
        if isinstance(images, Tensor):
            return torch.cat([part.reshape(1) for part in parts])
        return [float(np.asarray(part).reshape(())) for part in parts]
