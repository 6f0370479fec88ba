"""Names to models: register once, create by name, never guess."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from iqa_models.entry_points import load_group
from iqa_models.errors import BadModelOption, UnknownModel
from iqa_models.index import ADAPTERS, OWN

if TYPE_CHECKING:
    from iqa_models.quality_model import QualityModel

Builder = Callable[..., "QualityModel"]
B = TypeVar("B", bound=Builder)

BY_CONTENT = frozenset({"backbone_weights"})
"""Options that need not stand on the card: the file's content is in the weights, its name in the card."""

GROUP = "iqa_harness.models"
"""Entry point group under which an installed package offers models."""

_BUILDERS: dict[str, Builder] = {}
_TO_BE_TRAINED: set[str] = set()
_LOADED: set[str] = set()


def register_model(name: str, *, random_head: bool = False) -> Callable[[B], B]:
    """Register a builder under a name; a name can be taken once.

    The builder takes keyword options only and returns a `QualityModel` whose card carries `name`
    and those options. Its docstring's first line is what `iqa-harness models` shows.

    Args:
        name: what `create_model` takes.
        random_head: the builder draws weights that only training or a checkpoint makes worth measuring.

    Raises:
        ValueError: the name is taken.
    """

    def register(builder: B) -> B:
        if name in _BUILDERS:
            raise ValueError(f"model {name!r} is registered already, by {_BUILDERS[name].__qualname__}")
        if name in OWN and builder.__module__ != (ours := f"{__package__}.{OWN[name].module}"):
            raise ValueError(f"model {name!r} is registered already, by {ours}")
        _BUILDERS[name] = builder
        if random_head:
            _TO_BE_TRAINED.add(name)
        return builder

    return register


def list_models(pattern: str = "*") -> list[str]:
    """Return the registered names that match a shell pattern (``swin*``), sorted."""
    return sorted(fnmatch.filter(_names(), pattern))


def describe_model(name: str) -> str:
    """Return the first line of a registered builder's docstring, without building anything.

    Raises:
        UnknownModel: no such name; the message holds the nearest one.
    """
    if name in OWN:
        return OWN[name].summary
    return (inspect.getdoc(_builder(name)) or "").split("\n", 1)[0]


def has_random_head(name: str) -> bool:
    """Return whether a model created by this name scores with random weights until it is trained."""
    return find_builder(name) is not None and name in _TO_BE_TRAINED


def create_model(name: str, **options: object) -> QualityModel:
    """Create a registered model in eval mode.

    Args:
        name: a name of `list_models`.
        **options: keyword options of that model's builder.

    Raises:
        UnknownModel: no such name; the message holds the nearest one.
        BadModelOption: the builder has no such option, cannot work with its value, or leaves it off the card.
    """
    builder = _builder(name)
    known = inspect.signature(builder).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        for option in options:
            if option not in known:
                near = did_you_mean(option, known)
                raise BadModelOption(
                    f"model {name!r} has no option {option!r}{near}; it takes: {', '.join(known) or 'none'}"
                )
    try:
        model = builder(**options).eval()
    except (TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        given = ", ".join(f"{key}={value!r:.200}" for key, value in options.items()) or "no options"
        raise BadModelOption(f"model {name!r} cannot be built with {given}: {error}") from error
    silent = [option for option in options if option not in model.spec.options and option not in BY_CONTENT]
    if silent:
        raise BadModelOption(
            f"model {name!r} takes {', '.join(silent)} and does not say so on its card, so that its results "
            "would pass for those of other values; put every option into the card's `options`"
        )
    if (builder.__module__ or "").partition(".")[0] == __package__ and name not in ADAPTERS:
        from iqa_models.identity import mark_as_built

        mark_as_built(model)
    return model


def find_builder(name: str) -> Builder | None:
    """Return what is registered under a name, None if nothing is; one of ours is imported now."""
    if name in OWN and name not in _BUILDERS:
        importlib.import_module(f"{__package__}.{OWN[name].module}")
    return _BUILDERS.get(name) or _plugged().get(name)


def _builder(name: str) -> Builder:
    builder = find_builder(name)
    if builder is None:
        near = did_you_mean(name, _names())
        raise UnknownModel(f"no model {name!r}{near}; `iqa-harness models list` shows them all")
    return builder


def _names() -> set[str]:
    return {*OWN, *_plugged()}


def _plugged() -> dict[str, Builder]:
    """Return the builders so far, after the installed packages have registered theirs at the first call.

    What stands under an entry point is a module or builder that registers when it is imported, or a
    function without arguments that registers when it is called. One that fails is named in a warning, and
    nothing of it stays.
    """
    if GROUP not in _LOADED:
        _LOADED.add(GROUP)  # first: what is loaded may look models up itself
        for name, offered in load_group(GROUP).items():
            before = dict(_BUILDERS)
            try:
                if callable(offered) and offered not in before.values():
                    offered()
            except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
                for registered in _BUILDERS.keys() - before.keys():
                    del _BUILDERS[registered]
                why = f"{type(error).__name__}: {error}"
                warnings.warn(f"entry point {name!r} ({GROUP}) is skipped: {why}", stacklevel=3)
    return _BUILDERS


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """Return ``, did you mean 'x'?`` for the nearest known name, or nothing.

    `cutoff` says how alike they must be: 0 for the nearest however far, 1 for equal.
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f", did you mean {close[0]!r}?" if close else ""


def takes(shared: Any, *, and_more: bool = False) -> Callable[[B], B]:
    """Let the keyword options a builder passes on be seen as what they are: fields of a NamedTuple.

    Args:
        shared: an instance; its values are the options' defaults.
        and_more: whether the builder takes any others, too.
    """

    def show(builder: B) -> B:
        signature = inspect.signature(builder)
        *own, rest = signature.parameters.values()
        fields = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
            for name, value in shared._asdict().items()
        ]
        shown = [*own, *fields, *([rest] if and_more else [])]
        vars(builder)["__signature__"] = signature.replace(parameters=shown)
        return builder

    return show


def require_whole(model: str, option: str, value: object, low: int) -> None:
    """Refuse an option's value that is no whole number from `low`.

    Raises:
        BadModelOption: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise BadModelOption(f"{model}: {option} must be a whole number from {low}, not {value!r}")
