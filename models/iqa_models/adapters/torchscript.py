"""``torchscript:FILE``: a network as TorchScript. Such a file holds code, which is run."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from iqa_models.adapters.foreign import ForeignModel, Known, reported, require_file, require_options
from iqa_models.registry import register_model


@register_model("torchscript")
def torchscript(of: str, **options: Any) -> ForeignModel:
    """A network as TorchScript, as torchscript:FILE.

    Args:
        of: the file, as `torch.jit.save` writes it. It is code of TorchScript's own language: it cannot
            open files, but is not data either. Take it from whom you trust.
        **options: `iqa_models.adapters.foreign.OPTIONS`.
    """
    require_options("torchscript", options)
    path = require_file("torchscript", of)
    with reported(f"torchscript:{of}"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's, of the format
        network = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    known = Known(f"TorchScript file {path.name}", path.name, f"file:{path.name}")
    return ForeignModel("torchscript", {"of": of, **options}, known, network).eval()
