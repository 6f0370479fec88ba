"""A model's hash: another model has another one, the same model has the same one.

Every case makes one model twice over and one model that differs in one thing its `state_dict` does not hold.
"""

import functools
import json
import sys
import types
import weakref
from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from iqa_models import (
    BadCheckpoint,
    BadModelOption,
    BadModelState,
    ModelSpec,
    QualityModel,
    create_model,
    list_models,
    load_checkpoint,
    register_model,
    save_checkpoint,
    weights_sha256,
)
from iqa_models.checkpoint import CARD
from iqa_models.identity import makers_of, mark_as_built, state_sha256
from iqa_models.index import ADAPTERS
from iqa_models.registry import _BUILDERS, find_builder

SPEC = ModelSpec(
    name="mine", summary="x", score_range=(0, 1), input_protocol="whole image", mean=(0, 0, 0), std=(1, 1, 1),
    source="here",
)  # fmt: skip

IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Holder(QualityModel):
    """Holds whatever it is given, beside one weight."""

    def __init__(self, **held):
        super().__init__(SPEC)
        self.weight = nn.Parameter(torch.ones(1))
        for name, value in held.items():
            setattr(self, name, value)

    def predict(self, images):
        return self.weight * images.mean((1, 2, 3))


@dataclass
class Settings:
    gain: float


class Vectors:
    """As a support vector machine's object: arrays in plain attributes."""

    def __init__(self, coef):
        self.coef_ = np.array([coef, 1.0])


class Slotted:
    __slots__ = ("gain",)

    def __init__(self, gain):
        self.gain = gain


def with_buffer(value):
    model = Holder()
    model.register_buffer("table", torch.tensor([value]), persistent=False)
    return model


def enclosing(value):
    return lambda images: value * images


def adding(value, module, images, scores):
    return scores + value


def hooked(value):
    model = Holder()
    model.register_forward_hook(functools.partial(adding, value))
    return model


def of_class(value):
    """A class whose own attribute decides, as one that reads a file in its body."""
    return type("Holder", (Holder,), {"gain": value, "__module__": "mine", "__qualname__": "Holder"})()


def of_global(value):
    """A class whose code reads a value of its module."""
    space = {"__name__": "mine", "Holder": Holder, "GAIN": value}
    text = "class Mine(Holder):\n    def predict(self, x):\n        return GAIN * x.mean((1, 2, 3))\n"
    exec(text, space)  # noqa: S102 - a module with a value read from a file
    return space["Mine"]()


def typed_in(factor):
    """A class whose text is nowhere."""
    space = {"__name__": "mine", "Holder": Holder}
    extra = " * 2" if factor == 2 else ""
    exec(f"class Mine(Holder):\n    def predict(self, x):\n        return x.mean((1, 2, 3)){extra}\n", space)  # noqa: S102
    return space["Mine"]()


def scripted(value):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = value

        def forward(self, x):
            return x * self.gain

    return torch.jit.script(Scaled().eval())


def traced(value):
    return torch.jit.trace(lambda x: x * value, torch.ones(2))


def quantised(value):
    return torch.quantize_per_tensor(torch.tensor([0.5, 1.0]), scale=value, zero_point=0, dtype=torch.qint8)


class Extra(nn.Module):
    """Saves something that is no tensor."""

    def __init__(self, value):
        super().__init__()
        self.register_buffer("b", torch.ones(1))
        self._value = value

    def get_extra_state(self):
        return {"value": self._value}

    def set_extra_state(self, state):
        self._value = state["value"]


def generator(seed):
    return torch.Generator().manual_seed(seed)


CASES = {
    "a number": lambda v: Holder(gain=float(v)),
    "a text": lambda v: Holder(mode=f"mode {v}"),
    "a list": lambda v: Holder(gains=[1.0, float(v)]),
    "a deep dict": lambda v: Holder(gains={"a": {"b": (1, v)}}),
    "a deque": lambda v: Holder(gains=deque([v])),
    "a set": lambda v: Holder(gains={v, 7}),
    "a tensor attribute": lambda v: Holder(gains={"t": torch.tensor([v])}),
    "tensors in a list": lambda v: Holder(gains=[torch.ones(1), torch.tensor([v])]),
    "an array": lambda v: Holder(gains=np.array([v, 0.0])),
    "an array of objects": lambda v: Holder(gains=np.array([v, None], dtype=object)),
    "a buffer that is not saved": with_buffer,
    "a dataclass": lambda v: Holder(settings=Settings(v)),
    "an object": lambda v: Holder(svr=Vectors(v)),
    "an object with slots": lambda v: Holder(o=Slotted(v)),
    "a namespace": lambda v: Holder(o=types.SimpleNamespace(gain=v)),
    "modules in a list": lambda v: Holder(nets=[nn.MaxPool2d(v)]),
    "weights in a list": lambda v: Holder(nets=[nn.Parameter(torch.tensor([float(v)]))]),
    "a setting of a module": lambda v: Holder(net=nn.MaxPool2d(v)),
    "the class of a module": lambda v: Holder(net=nn.ReLU() if v == 1 else nn.Tanh()),
    "a closure": lambda v: Holder(f=enclosing(v)),
    "a default": lambda v: Holder(f=eval(f"lambda x, gain={v}: gain * x")),  # noqa: S307
    "a partial": lambda v: Holder(f=functools.partial(adding, v)),
    "a bound method": lambda v: Holder(f=types.MethodType(repr, Settings(v))),
    "a hook": hooked,
    "a value of the class": of_class,
    "a value of the module": of_global,
    "code without a text": typed_in,
    "a value in TorchScript": lambda v: Holder(net=scripted(float(v))),
    "the graph of TorchScript": lambda v: Holder(net=traced(float(v))),
    "a constant in TorchScript": lambda v: Holder(net=traced(torch.tensor([1.0, v]))),
    "a quantised tensor": lambda v: Holder(t=quantised(0.01 * v)),
    "a sparse tensor": lambda v: Holder(t=torch.tensor([[0.0, v]]).to_sparse()),
    "a sparse matrix": lambda v: Holder(t=torch.tensor([[0.0, v]]).to_sparse_csr()),
    "a complex tensor": lambda v: Holder(t=torch.tensor([1j * v]).conj()),
    "extra state": lambda v: Holder(net=Extra(v)),
    "a generator": lambda v: Holder(g=generator(v)),
    "the mean of another card": lambda v: set_mean(v - 1.0),
}


def set_mean(value):
    model = Holder()
    model._mean.fill_(value)
    return model


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:torch.quantize", "ignore:Sparse")
@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_what_is_held_beside_the_weights_is_in_the_hash(make):
    """Equal models have equal hashes, a changed one another; the weights of all three are equal."""
    first, same, other = make(1), make(1), make(2)
    assert weights_sha256(first) == weights_sha256(same)
    assert weights_sha256(first) != weights_sha256(other)


def test_dynamic_quantisation_has_a_hash_and_no_checkpoint(tmp_path):
    """The packed weights of torch's quantised layers count; safetensors cannot hold them."""

    def made(value):
        net = nn.Sequential(nn.Linear(2, 1))
        nn.init.constant_(net[0].weight, value)
        nn.init.zeros_(net[0].bias)
        return Holder(net=torch.ao.quantization.quantize_dynamic(net, {nn.Linear}))

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, same, other = made(1.0), made(1.0), made(2.0)
    assert weights_sha256(first) == weights_sha256(same) != weights_sha256(other)
    with pytest.raises(BadCheckpoint, match="dense tensors only, not net"):
        save_checkpoint(first, tmp_path / "out", training={})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"net": nn.LazyLinear(1)}, r"net\.\w+ is lazy .*score one image"),
        ({"net": nn.Linear(1, 1, device="meta")}, r"net\.\w+ is on the meta device"),
        ({"items": [1, iter([1])]}, None),
        ({"file": sys.stdout}, r"file \(.*\) cannot be read"),
        ({"deep": {"a": (x for x in ())}}, r"deep\[1\] \(generator\) cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_state_without_values_is_one_clear_error(held, words):
    """It names the part and what to do; what does have a state is read."""
    model = Holder(**held)
    if words is None:
        assert weights_sha256(model) == weights_sha256(model)
        return
    with pytest.raises(BadModelState, match=words):
        weights_sha256(model)


def test_what_decides_no_score_is_not_in_the_hash():
    """Mode, device handles, references and circles are no state."""
    model = Holder(device=torch.device("cpu"), path_of=sys)
    before = weights_sha256(model)
    assert weights_sha256(model.train()) == before
    assert weights_sha256(model.requires_grad_(False)) == before
    ring = Holder(items=[])
    ring.items.append(ring)
    ring.ref = weakref.ref(ring)
    assert weights_sha256(ring) == weights_sha256(ring)


@pytest.mark.parametrize("folder", ["one", "two"])
def test_a_models_folder_is_not_in_the_hash(tmp_path, monkeypatch, folder):
    """The same file elsewhere makes the same model, though it remembers where it lies."""
    hashes = []
    for place in ("here", folder):
        file = tmp_path / place / "mine_there.py"
        file.parent.mkdir()
        file.write_text(
            "from pathlib import Path\nHERE = Path(__file__).parent\n\n\ndef f(x):\n    return HERE, x\n"
        )
        space = {"__name__": "mine_there", "__file__": str(file)}
        exec(compile(file.read_text(), str(file), "exec"), space)  # noqa: S102
        monkeypatch.setitem(sys.modules, "mine_there", types.SimpleNamespace(__file__=str(file)))
        hashes.append(weights_sha256(Holder(f=space["f"])))
    assert hashes[0] == hashes[1]


BUILT = [
    name
    for name in list_models()
    if name not in ADAPTERS and find_builder(name).__module__.startswith("iqa_models")
]


@pytest.mark.parametrize("name", BUILT)
def test_our_own_models_are_their_card_and_weights_alone(name):
    """The hash is that of `state_dict()`, as it always was; an attribute changed by hand is seen."""
    options = {"pretrained": "none"} if "pretrained" in _parameters(name) else {}
    model = create_model(name, **options)
    plain = state_sha256(dict(model.state_dict()))
    assert weights_sha256(model) == plain
    assert makers_of(model) == []
    if name in ("smart_iqa_base", "smart_iqa_small"):  # the code of smart_iqa_tiny, with more to hash
        return
    model.changed_by_hand = 3
    assert weights_sha256(model) != plain


def _parameters(name):
    import inspect

    return inspect.signature(find_builder(name)).parameters


@pytest.mark.parametrize("name", ["linear", "demo_resnet10t", "smart_iqa_tiny", "srm_mobilenetv3_large"])
def test_scoring_leaves_the_hash_as_it_is(name):
    """Nothing our models hold changes with use."""
    options = {} if name == "linear" else {"pretrained": "none"}
    options |= {"protocol": "native"} if "iqa" in name or "srm" in name else {}
    options |= {"dynamic_size": True} if "iqa" in name else {}
    model = create_model(name, **options)
    before = weights_sha256(model)
    with torch.no_grad():
        model(torch.rand(1, 3, 64, 64))
    assert weights_sha256(model) == before


def test_a_model_of_a_users_builder_counts_whole(monkeypatch):
    """What its builder read from a file is in no card and no weight: it is in the hash."""
    monkeypatch.setattr("iqa_models.registry._BUILDERS", dict(_BUILDERS))
    read = [1.0]
    register_model("reads_a_file")(lambda: Holder(coef=read[0]))
    first = weights_sha256(create_model("reads_a_file"))
    read[0] = -1.0
    assert weights_sha256(create_model("reads_a_file")) != first


def test_an_option_that_is_not_on_the_card_is_refused(monkeypatch):
    """Results of another value would pass for its own; a default that is not given needs no card."""
    monkeypatch.setattr("iqa_models.registry._BUILDERS", dict(_BUILDERS))

    @register_model("silent")
    def silent(*, w: float = 1.0):
        return Holder(w=w)

    assert create_model("silent").w == 1.0
    with pytest.raises(BadModelOption, match=r"'silent' takes w and does not say so on its card"):
        create_model("silent", w=-1.0)


def test_the_cards_hash_of_the_weights_is_checked(tmp_path):
    """Weights and file hash that agree with each other but not with the card's content are refused."""
    folder = save_checkpoint(create_model("linear"), tmp_path / "c", training={})
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"weights_sha256": "0" * 64}))
    with pytest.raises(BadCheckpoint, match="the card says 000000000000: one of the two was changed"):
        load_checkpoint(folder)


def test_extra_state_is_in_no_checkpoint(tmp_path):
    """What is no tensor would be lost without a word."""
    with pytest.raises(BadCheckpoint, match=r"not net\._extra_state"):
        save_checkpoint(Holder(net=Extra(1)), tmp_path / "out", training={})


def test_a_mark_is_of_the_state_it_was_given_for():
    """A copy keeps it; a change beside the weights undoes it, and back again."""
    model = Holder(gain=1.0)
    counted = weights_sha256(model)
    mark_as_built(model)
    plain = weights_sha256(model)
    assert plain == state_sha256(dict(model.state_dict())) != counted
    model.gain = 2.0
    assert weights_sha256(model) not in (plain, counted)
    model.gain = 1.0
    assert weights_sha256(model) == plain
