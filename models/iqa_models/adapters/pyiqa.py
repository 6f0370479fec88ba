"""``pyiqa:NAME``: a no-reference metric of the pyiqa package, its weights from its cache or a file."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock  # lets a name of a library mean something else for a while

from torch import nn

from iqa_models.adapters.foreign import (
    OPTIONS,
    RANDOM,
    ForeignModel,
    Known,
    load_weights,
    reported,
    require_options,
    seeded_apart,
)
from iqa_models.errors import BadModelOption, MissingWeights, UnknownModel
from iqa_models.registry import did_you_mean, register_model

OWN = ("weights", "strip", "pretrained", "download")

FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""Environment variable by which torch runs no pickle, whatever it is asked."""


@register_model("pyiqa")
def pyiqa(of: str, **options: Any) -> ForeignModel:
    """A no-reference metric of the pyiqa package, as pyiqa:NAME.

    Direction and, where both ends are stated, score range are those of pyiqa's registry.

    Args:
        of: name in pyiqa's registry.
        **options: ``weights`` and ``strip``, a file of tensors; ``pretrained=false``, random weights drawn
            from a seed; ``download=true``, weights that are not in pyiqa's cache are fetched;
            `iqa_models.adapters.foreign.OPTIONS`; the others go to the metric.
    """
    kind, settings, config = _registered(of)
    parameters = inspect.signature(kind).parameters
    require_options(f"pyiqa:{of}", options, (*OWN, *parameters))
    pretrained = options.get("pretrained", True)
    if not isinstance(pretrained, bool):
        raise BadModelOption(f"pyiqa:{of}: pretrained is true or false; for weights of a file ?weights=FILE")
    blank = not pretrained or "weights" in options
    settings |= {k: v for k, v in options.items() if k in parameters and k not in (*OWN, *OPTIONS)}
    if blank:
        settings |= {name: None for name in ("pretrained_model_path",) if name in parameters}
        if "pretrained" in parameters:
            settings["pretrained"] = None if isinstance(settings.get("pretrained"), str) else False
    net = _built(of, kind, settings, blank=blank, download=options.get("download") is True)
    if "weights" in options:
        load_weights(net, str(options["weights"]), str(options.get("strip", "")))
    notes = () if pretrained or "weights" in options else (RANDOM,)
    weights = "random" if notes else f"file:{options['weights']}" if "weights" in options else f"pyiqa:{of}"
    known = Known(
        f"pyiqa {config['version']}: {of}", f"https://github.com/chaofengc/IQA-PyTorch, metric {of}", weights,
        _ends(config.get("score_range")), not config.get("lower_better"), notes=notes,
    )  # fmt: skip
    return ForeignModel("pyiqa", {"of": of, **options}, known, net).eval()


def _registered(of: str) -> tuple[Any, dict[str, Any], Mapping[str, Any]]:
    """Return a metric's class, its settings and its entry in pyiqa's registry.

    Raises:
        UnknownModel: pyiqa is not installed, or has no such metric without a reference.
    """
    try:
        with reported("pyiqa"):
            importlib.import_module("pyiqa")
            configs = importlib.import_module("pyiqa.default_model_configs").DEFAULT_CONFIGS
            archs = importlib.import_module("pyiqa.archs")
            registry = importlib.import_module("pyiqa.utils.registry").ARCH_REGISTRY
    except Exception as error:
        raise UnknownModel(f"{error}; pip install 'iqa-harness[pyiqa]'") from error
    blind = [name for name, config in configs.items() if config.get("metric_mode") == "NR"]
    if of not in blind:
        why = "needs a reference image" if of in configs else f"is unknown to it{did_you_mean(of, blind)}"
        raise UnknownModel(f"pyiqa:{of} {why}; without a reference are {', '.join(blind)}")
    settings = dict(configs[of]["metric_opts"])
    kind = settings.pop("type")
    with reported(f"pyiqa:{of}"):
        archs._lazy_import_arch(kind)
        version = importlib.import_module("importlib.metadata").version("pyiqa")
        return registry.get(kind), settings, {**configs[of], "version": version}


def _built(of: str, kind: Any, settings: Mapping[str, Any], *, blank: bool, download: bool) -> nn.Module:
    """Return a metric's network on the CPU.

    Raises:
        MissingWeights: it asks for a file that is not in its cache.
        ModelError: pyiqa raises anything else.
    """
    asked: list[str] = []
    with _offline(asked, allowed=download), _blank() if blank else contextlib.nullcontext(), seeded_apart():
        try:
            with reported(f"pyiqa:{of}"):
                net: nn.Module = kind(**settings)
        except Exception as error:
            if not asked:
                raise
            folder = importlib.import_module("pyiqa.utils.download_util").DEFAULT_CACHE_DIR
            raise MissingWeights(
                f"pyiqa:{of}: its weights are not in the caches of pyiqa ({folder}), torch or timm; "
                "?download=true fetches them, ?weights=FILE reads a file, ?pretrained=false makes random ones"
            ) from error
    return net.eval()


@contextlib.contextmanager
def _offline(asked: list[str], *, allowed: bool) -> Iterator[None]:
    """Let no host be looked up, noting which was asked for, and no pickle be run."""

    def refuse(host: Any, *args: Any, **options: Any) -> Any:
        asked.append(str(host))
        raise socket.gaierror(f"{host}: no network unless asked for")

    with contextlib.ExitStack() as stack:
        # By itself, not by a patch of the whole environment: what libraries set at their import stays.
        former = {name: os.environ[name] for name in (FORCED,) if name in os.environ}
        stack.callback(os.environ.update, former)
        stack.callback(os.environ.pop, FORCED, None)
        os.environ[FORCED] = "1"
        if not allowed:
            stack.enter_context(mock.patch.object(socket, "getaddrinfo", refuse))
        yield


@contextlib.contextmanager
def _blank() -> Iterator[None]:
    """Let networks be made without the weights that they would load: all of them come from elsewhere."""

    def nothing(*args: Any, **options: Any) -> dict[str, Any]:
        return _Nothing()

    places = {
        "torch": ("load",),
        "torch.hub": ("load_state_dict_from_url", "download_url_to_file"),
        "torchvision.models._api": ("load_state_dict_from_url",),
        "timm.models._builder": ("load_pretrained",),
        "pyiqa.utils.download_util": ("download_url_to_file",),
    }
    with contextlib.ExitStack() as stack:
        for module, names in places.items():
            for name in names:
                place = importlib.import_module(module)
                stack.enter_context(mock.patch.object(place, name, nothing, create=True))
        stack.enter_context(mock.patch.object(nn.Module, "load_state_dict", nothing))
        yield


class _Nothing(dict[str, Any]):
    """What is read from a file of weights that is not read: whatever is asked for, nothing is in it."""

    def __missing__(self, key: str) -> _Nothing:
        return _Nothing()


def _ends(text: str | None) -> tuple[float, float] | None:
    """Read '0, 1' or '~0, ~10' as pyiqa writes it; None where an end is open."""
    try:
        low, high = (float(part.strip().lstrip("~")) for part in str(text).split(","))
    except ValueError:
        return None
    return (low, high) if math.isfinite(high - low) and low < high else None
