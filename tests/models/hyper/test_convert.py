"""Foreign checkpoints: each layout loads strictly and scores as an independent evaluation of its tensors."""

import os
import re
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from iqa_models import BadCheckpoint, create_model
from iqa_models.hyper import import_checkpoint
from iqa_models.hyper.convert import identify, layout_of, translate
from iqa_models.protocols import crop_scores, parse_protocol
from iqa_models.state_dicts import read_state_dict, tensors_of

SWIN = {
    "smart_iqa_tiny": ("swin_tiny_patch4_window7_224", "SWIN_T"),
    "smart_iqa_small": ("swin_small_patch4_window7_224", "SWIN_T"),
    "smart_iqa_base": ("swin_base_patch4_window7_224", "SWIN_B"),
}


class Payload:
    """Leaves a trace if it is ever unpickled by code."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        """Run a command when unpickled."""
        return os.system, (f"touch {self.trace}",)


@pytest.fixture
def folder():
    """A folder that is gone after the test: these files are large."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def random_head(reference, trunk, hidden, fusion, **options):
    """A head's tensors under the authors' names, small enough for tame scores."""
    generator = torch.Generator().manual_seed(5)
    shapes = reference.author_shapes(getattr(reference, trunk), hidden, fusion, **options)
    return {
        name: torch.randn(shape, generator=generator) * (shape[-1] if len(shape) == 2 else 100) ** -0.5 * 0.5
        for name, shape in shapes.items()
    }


def author_names(head, trunk_state, prefix, backbone):
    """The authors' whole state dict: LDA and trunk under a prefix, the rest bare."""
    names = {(f"{prefix}.{name}" if name.startswith("lda") else name): value for name, value in head.items()}
    return {f"{prefix}.{backbone}{name}": value for name, value in trunk_state.items()} | names


def pyiqa_names(head, trunk_state):
    """Pyiqa's whole state dict of the same tensors."""
    names = {f"base_model.{name}": value for name, value in trunk_state.items()}
    for name, value in head.items():
        kind = name.rsplit(".", 1)[1]
        if name.startswith("conv1."):
            names[name] = value
        elif name.startswith("lda4"):
            names[f"lda_modules.3.2.{kind}"] = value
        elif name.startswith("lda"):
            names[f"lda_modules.{int(name[3]) - 1}.{3 if '_fc' in name else 0}.{kind}"] = value
        elif name == f"fc5w_fc.{kind}":
            names[f"fc_w_modules.4.2.{kind}"] = value
        elif "w_conv" in name:
            names[f"fc_w_modules.{int(name[2]) - 1}.{kind}"] = value
        else:
            names[f"fc_b_modules.{int(name[2]) - 1}.2.{kind}"] = value
    return names


def normalised(images):
    """ImageNet mean and std, written out."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return (images - mean) / std


@pytest.fixture(scope="module")
def hyperiqa(reference):
    """Tensors of a HyperIQA, an image, and its score by timm's trunk and the independent head."""
    torch.manual_seed(11)
    net = timm.create_model("resnet50", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.num_batches_tracked.fill_(9)
    head = random_head(reference, "HYPERIQA", (1024, 512), "last")
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        score = reference.evaluate(head, net(normalised(image)), "last")["score"]
    return head, net.state_dict(), image, score


@pytest.fixture(scope="module")
def swin(reference):
    """Tensors of timm's Swin-T, an image, and its stages by that network."""
    torch.manual_seed(12)
    net = timm.create_model(SWIN["smart_iqa_tiny"][0], features_only=True).eval()
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        maps = [stage.permute(0, 3, 1, 2) for stage in net(normalised(image))]
    return net.state_dict(), image, maps


@cache
def shapes_of_swin(backbone):
    """State of one of timm's Swin Transformers without storage."""
    with torch.device("meta"):
        return timm.create_model(backbone, features_only=True).state_dict()


def write(state, path):
    """Save as torch does, and return the path."""
    torch.save(state, path)
    return path


@pytest.mark.parametrize("form", ["plain", "old", "pyiqa"])
def test_hyperiqa_scores_as_its_tensors_say(hyperiqa, form, folder):
    """The authors' file, also of old torch, and pyiqa's all give the independent score."""
    head, trunk, image, score = hyperiqa
    state = author_names(head, trunk, "res", "")
    if form == "old":
        state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        assert len(state) == 302
    if form == "pyiqa":
        state = {"params": pyiqa_names(head, trunk)}
    path = write(state, folder / "koniq_pretrained.pkl")
    model, report = import_checkpoint(path, protocol="native", resize="none")
    with torch.no_grad():
        torch.testing.assert_close(model(image), score, rtol=1e-5, atol=1e-5)
    assert not model.training
    assert report.model == model.spec.name == "hyperiqa"
    assert report.layout == ("pyiqa" if form == "pyiqa" else "HyperIQA author")
    assert report.converted == (302 if form == "old" else 355)
    assert len(report.filled) == (53 if form == "old" else 0)
    assert model.spec.initial_weights == "file:koniq_pretrained.pkl"
    assert model.spec.score_range == ((0.0, 1.0) if form == "pyiqa" else (0.0, 100.0))


def test_each_layouts_own_protocol_is_the_default(hyperiqa, folder):
    """Pyiqa's models score 25 crops at uniform steps without resizing; the authors', 25 random crops."""
    head, trunk, _, _ = hyperiqa
    model, report = import_checkpoint(write({"params": pyiqa_names(head, trunk)}, folder / "a.pth"))
    assert model.spec.input_protocol.startswith(
        "mean of 224x224 crops on 5x5 uniform steps as pyiqa takes them"
    )
    assert report.options["protocol"] == "uniform:5x5"


@pytest.mark.parametrize("fusion", ["last", "afa", "attention"])
def test_smart_scores_as_its_tensors_say(reference, swin, fusion, folder):
    """The author's file of each ablation row is recognised and gives the independent score."""
    trunk, image, maps = swin
    head = random_head(reference, "SWIN_T", (512, 256), fusion, attention_hidden=128)
    with torch.no_grad():
        score = reference.evaluate(head, maps, fusion)["score"]
    state = author_names(head, trunk, "swin", "backbone.")
    assert len(state) == (210 if fusion == "attention" else 206)
    model, report = import_checkpoint(write(state, folder / "best.pkl"), protocol="native")
    with torch.no_grad():
        torch.testing.assert_close(model(image), score, rtol=1e-5, atol=1e-5)
    assert report.model == "smart_iqa_tiny"
    assert report.options["fusion"] == model.spec.options["fusion"] == fusion
    if fusion == "attention":
        assert model.spec.options["attention_hidden"] == 128


@pytest.mark.parametrize("name", SWIN)
@pytest.mark.parametrize("fusion", ["last", "afa", "attention"])
def test_every_smart_variant_is_recognised_and_fits_to_the_name(reference, skeleton, name, fusion):
    """Size and fusion are read off names and shapes, and each tensor has its place and shape in our model."""
    backbone, trunk = SWIN[name]
    ours = skeleton(name, fusion=fusion).state_dict()
    with torch.device("meta"):
        head = {
            key: torch.empty(shape)
            for key, shape in reference.author_shapes(getattr(reference, trunk), (512, 256), fusion).items()
        }
    state = author_names(head, shapes_of_swin(backbone), "swin", "backbone.")
    assert layout_of(state) == "SMART-IQA author"
    found, options = identify("SMART-IQA author", state, Path("file"))
    assert (found, options["fusion"]) == (name, fusion)
    translated, unknown = translate("SMART-IQA author", state)
    assert unknown == []
    assert {key: tuple(value.shape) for key, value in translated.items()} == {
        key: tuple(value.shape) for key, value in ours.items()
    }


def test_what_does_not_fit_is_listed(hyperiqa, folder):
    """Missing, unexpected and misshapen tensors are each named, and whose file it looks like."""
    head, trunk, _, _ = hyperiqa
    state = author_names(head, trunk, "res", "")
    state["extra.weight"] = torch.zeros(2)
    state["fc5w_fc.bias"] = torch.zeros(15)
    del state["conv1.4.bias"]
    with pytest.raises(BadCheckpoint) as caught:
        import_checkpoint(write(state, folder / "some.pkl"))
    for words in (
        "looks like HyperIQA author's hyperiqa",
        "1 missing: head.hyper.squeeze.4.bias",
        "1 unexpected: extra.weight",
        "head.hyper.weights.4.bias is [15], not [14]",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"layer1.0.conv1.weight": 0, "fc.weight": 0}, "a bare ResNet trunk (give it as backbone_weights)"),
        ({"patch_embed.proj.weight": 0}, "a bare Swin trunk (give it as backbone_weights)"),
        ({"head.lda.reduce.0.weight": 0, "trunk.net.x": 0}, "our own weights"),
        ({"model.layer.weight": 0}, "no model known here"),
        ({"swin.lda4_fc.weight": 0, "swin.backbone.layers_2.blocks.0.x": 0}, "no size has 2 channels"),
        ({"swin.backbone.layers_2.blocks.0.x": 0}, "swin.lda4_fc.weight is missing"),
        ({}, "0 tensors"),
    ],
)
def test_a_file_of_another_family_is_named(state, words, folder):
    """A trunk alone, our own weights and strangers each raise BadCheckpoint that says what they look like."""
    path = write({name: torch.zeros(2, 2) for name in state}, folder / "file.pth")
    with pytest.raises(BadCheckpoint, match=re.escape(words)):
        import_checkpoint(path)


def test_a_pickled_object_is_refused_and_nothing_runs(folder):
    """A state dict with a command in it is refused before anything is run."""
    trace = folder / "trace"
    path = write({"res.lda4_fc.weight": torch.zeros(1), "x": Payload(trace)}, folder / "bad.pkl")
    with pytest.raises(BadCheckpoint, match=r"pickled code \(.*system\) and nothing of it was run"):
        import_checkpoint(path)
    assert not trace.exists()


TENSORS = {"a.weight": torch.zeros(1), "b": torch.ones(1)}
PREFIXED = {f"module.module.{name}": value for name, value in TENSORS.items()}


@pytest.mark.parametrize(
    "content",
    [
        {"params": TENSORS, "params_ema": {"c": torch.zeros(1)}},
        {"params_ema": TENSORS},
        {"params": {"lr": 1e-4, "steps": [3, 5]}, "model": {"lr": 1}, "state_dict": TENSORS},
        {"state_dict": TENSORS, "epoch": 3},
        {"model": TENSORS, "optimizer": {"state": {}}},
        {"net": TENSORS},
        {"model_state_dict": TENSORS, "loss": torch.zeros(1)},
        {"model": {"state_dict": TENSORS}},
        PREFIXED,
        {"model": PREFIXED},
        {"state_dict": {f"model.{name}": value for name, value in TENSORS.items()}},
        {f"_orig_mod.module.{name}": value for name, value in TENSORS.items()},
        {**TENSORS, "best": 0.9},
    ],
)
def test_wrappers_and_prefixes_are_taken_off(content):
    """What training code writes around a state dict is opened, what all names begin with is cut."""
    assert tensors_of(content) == TENSORS


@pytest.mark.parametrize("names", [("model",), ("net", "params")])
def test_a_file_that_holds_itself_has_no_tensors(tmp_path, names):
    """Torch reads such a dict; looking into it comes to an end."""
    content: dict = {}
    for name in names:
        content = {name: content} if content else content
        content[name] = content
    torch.save(content, tmp_path / "round.pth")
    assert tensors_of(read_state_dict(tmp_path / "round.pth")) == {}


def test_a_prefix_that_not_all_names_have_stays():
    """It is part of the names."""
    state = {"module.a": torch.zeros(1), "b": torch.ones(1)}
    assert tensors_of(state) == state
    assert tensors_of({}) == {}


def test_a_wrapped_file_scores_as_the_bare_one(hyperiqa, folder):
    """Import and backbone weights take the same wrappers."""
    head, trunk, image, score = hyperiqa
    state = {f"module.module.{k}": v for k, v in author_names(head, trunk, "res", "").items()}
    model, _ = import_checkpoint(write({"model_state_dict": state}, folder / "a.pth"), protocol="native")
    with torch.no_grad():
        torch.testing.assert_close(model(image), score, rtol=1e-5, atol=1e-5)
    whole = {f"module.{name}": value for name, value in trunk.items()}
    path = write({"net": whole}, folder / "trunk.pth")
    loaded = create_model("hyperiqa", backbone_weights=str(path)).trunk.net.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in trunk.items())


def enlarged(image, factor):
    """Bilinear by its formula in float64: pixel centres, the factor as given, edges repeated."""
    pixels = image[0].double().numpy()
    for axis in (1, 2):
        size = pixels.shape[axis]
        at = np.clip((np.arange(int(np.floor(size * factor))) + 0.5) / factor - 0.5, 0, None)
        low = np.minimum(np.floor(at).astype(int), size - 1)
        high = np.minimum(low + 1, size - 1)
        shape = [-1 if a == axis else 1 for a in range(3)]
        share = (at - low).reshape(shape)
        pixels = np.take(pixels, low, axis) * (1 - share) + np.take(pixels, high, axis) * share
    return torch.from_numpy(pixels)[None].float()


@pytest.fixture(scope="module")
def pyiqa_model(hyperiqa):
    """A model imported from a file in PyIQA's layout."""
    head, trunk, _, _ = hyperiqa
    with tempfile.TemporaryDirectory() as folder:
        return import_checkpoint(write({"params": pyiqa_names(head, trunk)}, Path(folder) / "a.pth"))[0]


def pyiqa_crops(image, rows=5):
    """Crops (side - 224) // rows apart from the top left corner; a side of 224 or less becomes 225 first."""
    shorter = min(image.shape[2:])
    whole = enlarged(image, 225 / shorter) if shorter <= 224 else image
    down, right = (whole.shape[2] - 224) // rows, (whole.shape[3] - 224) // rows
    return torch.cat(
        [
            whole[..., i * down : i * down + 224, j * right : j * right + 224]
            for i in range(rows)
            for j in range(rows)
        ]
    )


def random_image(size):
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("size", [(224, 224), (225, 300), (100, 341), (229, 228), (384, 512), (300, 224)])
def test_pyiqas_crops_are_the_ones_that_are_scored(pyiqa_model, size):
    """What an imported model's protocol cuts out of images of all shapes is what PyIQA cuts out."""
    image, seen = random_image(size), []

    def keep(patches):
        seen.append(patches)
        return patches.mean(dim=(1, 2, 3))

    crop_scores(keep, image, pyiqa_model.protocol, crop_batch=7, checkpointed=False)
    torch.testing.assert_close(torch.cat(seen), pyiqa_crops(image), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_score_is_the_mean_over_pyiqas_crops(pyiqa_model, monkeypatch):
    """The whole model, on an image that is enlarged first; in two rows of crops, not five, to be short."""
    monkeypatch.setattr(pyiqa_model, "protocol", parse_protocol("uniform:2x2"))
    image = random_image((100, 341))
    with torch.no_grad():
        # Of an image that is as low as its crops two rows of crops are one: each is scored once.
        distinct, times = pyiqa_crops(image, 2).unique(dim=0, return_counts=True)
        each = torch.stack([pyiqa_model.score_patches(crop[None])[0] for crop in distinct])
        assert times.tolist() == [2] * 2
        torch.testing.assert_close(pyiqa_model(image)[0], (each * times).sum() / 4, rtol=1e-4, atol=1e-5)
