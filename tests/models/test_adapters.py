"""Somebody else's model by a way and options: its card, its numbers, its gradient, and what is refused."""

import shlex
import sys
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from iqa_models import (
    BadCheckpoint,
    BadModelOption,
    ModelError,
    UnknownModel,
    create_model,
    weights_sha256,
    wrap,
)

SOURCE = """
import torch
from torch import nn
from iqa_models import LinearQuality, create_model


class Mean(nn.Module):
    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(float(gain)))

    def forward(self, images):
        return self.gain * images.mean(dim=(1, 2, 3))


class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Mean()

    def forward(self, images):
        return self.net(images)


def exits():
    raise SystemExit("no licence")


def scores(images):
    return images.mean(dim=(1, 2, 3))


def of_arrays():
    return lambda arrays: arrays.mean(axis=(1, 2, 3))


def of_bytes():
    return lambda pixels: pixels.mean()


def ours(**options):
    return create_model("linear", **options)


def broken():
    raise KeyError("no such thing")


NUMBER = 3
"""
SCORER = "import sys\nfrom PIL import Image, ImageStat\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a module of the user's own, where the user stands."""
    (tmp_path / "own_models_here.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_models_here", raising=False)
    return tmp_path


def command(folder, text, name="scorer.py"):
    """Return a command that runs a Python text on files."""
    (folder / name).write_text(text)
    return shlex.join([sys.executable, str(folder / name)]) + " {files}"


def batch(count=3, side=16):
    """Return random images."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_a_factory_gets_its_options_and_its_module_a_gradient(place):
    """The score is the factory's; the gradient of a mean times 2 is 2 over the number of values."""
    model = create_model("module", of="own_models_here:Mean", gain=2, range="0,2")
    images = batch().requires_grad_()
    scores = model(images)
    torch.testing.assert_close(scores, 2 * images.mean(dim=(1, 2, 3)))
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    torch.testing.assert_close(gradient, torch.full_like(images, 2 / images[0].numel()))
    assert model.spec.options == {"of": "own_models_here:Mean", "gain": 2, "range": "0,2"}
    again = create_model("module", **model.spec.options)
    assert weights_sha256(again) == weights_sha256(model)
    assert weights_sha256(create_model("module", of="own_models_here:Mean", gain=3)) != weights_sha256(model)


def test_one_of_ours_keeps_its_range_and_direction(place):
    """A QualityModel of a factory is scored as it is and leaves nothing to be measured."""
    plain = create_model("linear")
    model = create_model("module", of="own_models_here:ours")
    assert model.spec.score_range == plain.spec.score_range
    assert model.unknown == ()
    side = plain.spec.fixed_size or 64
    assert torch.equal(model(batch(side=side)), plain(batch(side=side)))


def test_callables_on_arrays_and_bytes_are_black_boxes(place):
    """The mean is that of the pixels, of bytes after rounding to 8 bits; neither has a gradient."""
    images = batch()
    for factory, takes, expected in (
        ("of_arrays", "arrays", images.mean(dim=(1, 2, 3))),
        ("of_bytes", "bytes", (images * 255 + 0.5).floor().mean(dim=(1, 2, 3))),
    ):
        model = create_model("module", of=f"own_models_here:{factory}", takes=takes)
        torch.testing.assert_close(model(images).float(), expected)
        assert not model.spec.has_gradient
    live = wrap(lambda arrays: arrays.mean(axis=(1, 2, 3)), name="live", score_range=(0, 1), takes="arrays")
    torch.testing.assert_close(live(images).float(), images.mean(dim=(1, 2, 3)))
    assert not live.spec.has_gradient


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"of": "own_models_here"}, "write module:PACKAGE.MOD:FACTORY"),
        ({"of": "own_models_here:Nothing"}, "has no Nothing"),
        ({"of": "own_models_here:NUMBER"}, "neither a function nor a module"),
        ({"of": "no_such_package_at_all:f"}, "No module named"),
        ({"of": "own_models_here:broken"}, "KeyError"),
        ({"of": "own_models_here:exits"}, "SystemExit: no licence"),
        ({"of": "own_models_here:scores"}, "argument: 'images'; it is called with its options alone"),
        ({"of": "own_models_here:of_bytes", "takes": "bytes", "pixels": 255}, "leave out pixels"),
        ({"of": "own_models_here:of_bytes", "takes": "bytes", "normalise": "half"}, "leave out normalise"),
        ({"of": "own_models_here:Mean", "gian": 2}, "gian"),
        ({"of": "own_models_here:Mean", "range": "1,0"}, "LOW below HIGH"),
        ({"of": "own_models_here:Mean", "direction": "up"}, "direction is one of"),
        ({"of": "own_models_here:Mean", "normalise": "mine"}, "normalise is one of"),
        ({"of": "own_models_here:Mean", "resize": 2.5}, "whole number of pixels"),
    ],
)
def test_what_is_no_model_is_one_clear_error(place, options, words):
    """Every mistake is a ModelError that names it."""
    with pytest.raises(ModelError, match=words):
        create_model("module", **options)


def test_options_stand_before_the_scorer(place):
    """Pixels to 255, a normalisation, a resize and a direction do what they say."""
    images = batch()
    of = "own_models_here:Mean"
    torch.testing.assert_close(
        create_model("module", of=of, pixels=255)(images), 255 * images.mean((1, 2, 3))
    )
    half = create_model("module", of=of, normalise="half")
    torch.testing.assert_close(half(images), 2 * images.mean((1, 2, 3)) - 1)
    down = create_model("module", of=of, direction="lower", range="0,1")
    torch.testing.assert_close(down(images), -images.mean((1, 2, 3)))
    assert down.spec.score_range == (-1, 0)
    flat = torch.full((1, 3, 20, 30), 0.25)
    torch.testing.assert_close(create_model("module", of=of, resize=8)(flat), torch.tensor([0.25]))


def test_plain_weights_are_loaded_and_what_does_not_fit_is_listed(place):
    """A prefix is taken away, a missing and an unexpected name are named, pickled code is refused."""
    save_file({"student.gain": torch.tensor(5.0)}, "w.safetensors")
    of = "own_models_here:Mean"
    model = create_model("module", of=of, weights="w.safetensors", strip="student.")
    torch.testing.assert_close(model(batch()), 5 * batch().mean((1, 2, 3)))
    with pytest.raises(BadCheckpoint, match=r"1 missing: gain; 1 unexpected: student.gain; .*strip"):
        create_model("module", of=of, weights="w.safetensors")
    torch.save({"gain": nn.Linear(1, 1)}, "code.pth")
    with pytest.raises(BadCheckpoint, match="pickled code"):
        create_model("module", of=of, weights="code.pth")


@pytest.mark.parametrize("before", ["", "module.", "_orig_mod.module.", "net."])
def test_a_name_that_the_module_has_itself_is_not_taken_for_a_wrapper_s(place, before):
    """Weights below a child called `net` are loaded as saved, and with what a trainer wrote in front."""
    torch.save({"state_dict": {f"{before}net.gain": torch.tensor(5.0)}}, "w.pth")
    for strip in ("", "net."):
        model = create_model("module", of="own_models_here:Held", weights="w.pth", strip=strip)
        torch.testing.assert_close(model(batch()), 5 * batch().mean((1, 2, 3)))


def test_torchscript_has_its_weights_and_gradient(tmp_path):
    """A traced network scores as the network, with the gradient of it."""
    network = nn.Sequential(nn.Conv2d(3, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the format old; files of it are there
        torch.jit.trace(network, batch()).save(tmp_path / "net.pt")
    model = create_model("torchscript", of=str(tmp_path / "net.pt"))
    images = batch().requires_grad_()
    torch.testing.assert_close(model(images), network(images).reshape(-1))
    slopes = [torch.autograd.grad(f(images).sum(), images)[0] for f in (model, network)]
    torch.testing.assert_close(*slopes)
    with pytest.raises(BadModelOption, match="no such file"):
        create_model("torchscript", of=str(tmp_path / "none.pt"))


def test_timm_loads_a_whole_network_and_resizes_for_it(tmp_path):
    """All weights of the file count, and an output of one score is what is asked for."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(3)
    network = timm.create_model("test_resnet", num_classes=1).eval()
    save_file(network.state_dict(), tmp_path / "head.safetensors")
    model = create_model("timm", of=f"test_resnet@{tmp_path / 'head.safetensors'}")
    config = network.pretrained_cfg
    mean, std = (torch.tensor(config[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    images = batch(2, 64)
    torch.testing.assert_close(model(images), network((images - mean) / std).reshape(-1))
    with pytest.raises(UnknownModel, match="test_resnet"):
        create_model("timm", of=f"test_resnt@{tmp_path / 'head.safetensors'}")


def test_timm_takes_a_head_with_the_rest_of_another_file_if_that_fits(tmp_path):
    """The two together are the network; what does not fit is listed in one line."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(3)
    network = timm.create_model("test_resnet", num_classes=1).eval()
    save_file(network.state_dict(), tmp_path / "whole.safetensors")
    save_file(network.get_classifier().state_dict(), tmp_path / "head.safetensors")
    of = f"test_resnet@{tmp_path / 'head.safetensors'}"
    whole = create_model("timm", of=f"test_resnet@{tmp_path / 'whole.safetensors'}")
    model = create_model("timm", of=of, backbone=str(tmp_path / "whole.safetensors"))
    assert torch.equal(model(batch(2, 64)), whole(batch(2, 64)))
    with pytest.raises(BadModelOption, match="head only"):
        create_model("timm", of=of)
    with pytest.raises(BadCheckpoint, match=r"does not fit the rest of timm:.* missing: bn1\.bias.* more$"):
        create_model("timm", of=of, backbone=str(tmp_path / "head.safetensors"))


def test_a_command_is_asked_for_many_files_once_and_for_no_content_twice(tmp_path):
    """One call for three images, none for the same ones again; the score is that of 8 bits."""
    calls = tmp_path / "calls"
    text = SCORER + (
        f"open({str(calls)!r}, 'a').write(f'{{len(sys.argv) - 1}} ')\n"
        "for f in sys.argv[1:]: print(f, sum(ImageStat.Stat(Image.open(f)).mean))\n"
    )
    model = create_model("cmd", of=command(tmp_path, text))
    images = torch.cat([batch(), batch()[:1]])  # one content twice
    expected = (images * 255 + 0.5).floor().mean(dim=(2, 3)).sum(dim=1)
    torch.testing.assert_close(model(images).float(), expected, rtol=1e-5, atol=1e-3)
    model(images)
    assert calls.read_text().split() == ["3"]
    model.forget()
    model(images)
    assert calls.read_text().split() == ["3", "3"]
    assert not model.spec.has_gradient


def test_a_command_is_no_shell_and_its_text_counts(tmp_path):
    """Signs of a shell are words like others; an edited scorer is another model, one that was used is not."""
    text = "import sys\nfor f in sys.argv[1:-1]: print(len(sys.argv[-1]))\n"
    of = command(tmp_path, text)
    model = create_model("cmd", of=f"{of} '; touch {tmp_path / 'pwned'} $(id)'")
    before = weights_sha256(model)
    assert model(batch(1)).item() == len(f"; touch {tmp_path / 'pwned'} $(id)")
    assert not (tmp_path / "pwned").exists()
    assert weights_sha256(model) == before
    (tmp_path / "scorer.py").write_text(text + "# another\n")
    assert weights_sha256(create_model("cmd", of=f"{of} '; touch {tmp_path / 'pwned'} $(id)'")) != before


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("import sys; sys.exit('no licence')", {}, "ended with code 1: no licence"),
        ("print(1)", {}, "printed 1 lines for 3 files"),
        ("print('a\\nb\\nc')", {}, "last word of a line must be the score"),
        ("import time; time.sleep(9)", {"seconds": 0.2}, r"no answer for 3 files in 0.2 s"),
    ],
)
def test_a_command_that_fails_says_how(tmp_path, text, options, words):
    """Its exit code and last line, a wrong number of lines, a word that is none, its time limit."""
    model = create_model("cmd", of=command(tmp_path, text), **options)
    with pytest.raises(ModelError, match=words):
        model(batch())


@pytest.mark.parametrize("options", [{"pixels": 255}, {"normalise": "imagenet"}])
def test_a_command_s_files_hold_the_pixels_as_they_are(tmp_path, options):
    """Scaled ones would be cut down to 8 bits as they come: another image."""
    of = command(tmp_path, SCORER)
    with pytest.raises(BadModelOption, match=f"leave out {next(iter(options))}"):
        create_model("cmd", of=of, **options)
    create_model("cmd", of=of, pixels=1, normalise="none", resize=8)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ("scorer", "one word must be {files}"),
        ("no-such-program-at-all {files}", "no program"),
        ("'", "split"),
    ],
)
def test_a_command_that_is_none_is_refused(of, words):
    """No place for the files, no program, a quotation that does not end."""
    with pytest.raises(BadModelOption, match=words):
        create_model("cmd", of=of)


def test_onnx_has_a_gradient_where_it_converts_and_none_where_it_is_run(tmp_path):
    """Both score as the network does; a converted one has its gradient, and the file's bytes count."""
    for module in ("onnx", "onnx2torch", "onnxruntime"):
        pytest.importorskip(module)
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.linspace(-1, 1, 27, dtype=np.float32).reshape(1, 3, 3, 3)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["p"]),
         helper.make_node("Flatten", ["p"], ["y"])],
        "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(content, tmp_path / "net.onnx")
    images = batch().requires_grad_()
    expected = nn.functional.conv2d(images, torch.tensor(weight)).mean(dim=(1, 2, 3))
    for by in ("onnx2torch", "onnxruntime"):
        model = create_model("onnx", of=str(tmp_path / "net.onnx"), by=by)
        torch.testing.assert_close(model(images).float(), expected, rtol=1e-4, atol=1e-5)
        assert ("gradient" in model.unknown) == (by == "onnx2torch")
        assert model.spec.has_gradient == (by == "onnx2torch")
    converted = create_model("onnx", of=str(tmp_path / "net.onnx"))
    slopes = [torch.autograd.grad(f.sum(), images)[0] for f in (converted(images), expected)]
    torch.testing.assert_close(*slopes)
    apart = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    onnx.save_model(content, tmp_path / "apart.onnx", **apart)  # as torch writes it
    made = create_model("onnx", of=str(tmp_path / "apart.onnx"), by="onnxruntime")
    torch.testing.assert_close(made(images).float(), expected, rtol=1e-4, atol=1e-5)
    (tmp_path / "weights").write_bytes((2 * weight).tobytes())
    double = create_model("onnx", of=str(tmp_path / "apart.onnx"), by="onnxruntime")
    torch.testing.assert_close(double(images).float(), 2 * expected, rtol=1e-4, atol=1e-5)
    assert weights_sha256(double) != weights_sha256(made)
    (tmp_path / "weights").unlink()
    with pytest.raises(BadModelOption, match="weights are in 'weights', which is no file beside it"):
        create_model("onnx", of=str(tmp_path / "apart.onnx"))
