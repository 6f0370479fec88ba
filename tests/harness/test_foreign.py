"""Somebody else's model through naming, measuring, a run, its manifest, workers and `models check`."""

import shlex
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import iqa_harness as iqa
from helpers import tiny
from iqa_harness.cli.app import app
from iqa_harness.entrants.defended import bare_label, with_bare
from iqa_harness.entrants.foreign import (
    as_recorded,
    foreign_argument,
    foreign_text,
    is_unfinished,
    measured,
)
from iqa_harness.entrants.naming import as_entrant, as_entrants, from_record, parse_model, run_plugins
from iqa_harness.errors import RunError
from iqa_models import BadCheckpoint, create_model
from iqa_results import ModelRecord

SOURCE = """
import torch
from torch import nn


class Edges(nn.Module):
    def __init__(self, sign=1.0):
        super().__init__()
        self.sign = nn.Parameter(torch.tensor(float(sign)))

    def forward(self, images):
        return self.sign * (images[..., 1:] - images[..., :-1]).abs().mean(dim=(1, 2, 3))


class Batchy(Edges):
    def forward(self, images):
        return super().forward(images) - super().forward(images).mean()


class Random(Edges):
    def forward(self, images):
        return super().forward(images) + torch.rand(len(images))


class Large(Edges):
    def forward(self, images):
        if images.requires_grad:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


class Broken(Edges):
    def forward(self, images):
        return self.no_such_layer(images)


class Pair(Edges):
    def forward(self, images):
        return super().forward(images)[:, None].repeat(1, 2)


def cut():
    return lambda images: images.detach().mean(dim=(1, 2, 3))


def away(point):
    return lambda arrays: abs(arrays.std(axis=(1, 2, 3)) - point)


def same():
    return lambda arrays: [0.5] * len(arrays)


def arrays():
    return lambda arrays: arrays.std(axis=(1, 2, 3))
"""
SCORER = """import sys
from PIL import Image, ImageStat
for f in sys.argv[1:]:
    print(sum(ImageStat.Stat(Image.open(f)).stddev))
"""
SUITE = tiny.on_smoke("queries", ["square/raise"], {"square": 'objectives = ["raise"]\nqueries = 4'})


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a module, a scorer and a suite of queries, where the user stands."""
    (tmp_path / "edges_of_mine.py").write_text(SOURCE)
    (tmp_path / "scorer.py").write_text(SCORER)
    (tmp_path / "queries.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "edges_of_mine", raising=False)
    return tmp_path


def images(count=4, side=48):
    """Return random images as uint8 arrays, from smooth to rough, and their labels."""
    draw = np.random.default_rng(0)
    scales = np.linspace(0.2, 1, count)
    pixels = [(s * draw.integers(0, 256, (side, side, 3))).astype(np.uint8) for s in scales]
    return pixels, scales


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pyiqa:musiq", ("musiq", "pyiqa", {"of": "musiq"})),
        ("a=pyiqa:musiq?pretrained=false", ("a", "pyiqa", {"of": "musiq", "pretrained": False})),
        ("module:a.b:c.d?x=1&range=0,5", ("c.d", "module", {"of": "a.b:c.d", "x": 1, "range": "0,5"})),
        ("onnx:/f/net.onnx", ("net", "onnx", {"of": "/f/net.onnx"})),
        ("timm:resnet18@/f/h.pth", ("resnet18", "timm", {"of": "resnet18@/f/h.pth"})),
        ("cmd:s --a=b {files}", ("s", "cmd", {"of": "s --a=b {files}"})),
        ("cmd:s '?' {files}?seconds=3", ("s", "cmd", {"of": "s '?' {files}", "seconds": 3})),
        ("cmd:s --of=module:x {files}", ("s", "cmd", {"of": "s --of=module:x {files}"})),
        ("linear", None),
        ("mine=./module:x", None),
    ],
)
def test_words_are_read_and_written_again(text, expected):
    """Label, way and options come out of the text, and the text of them reads as the same."""
    found = foreign_argument(text)
    assert found == expected
    if found is not None:
        again = foreign_argument(foreign_text(*found))
        assert again is not None
        assert again[1:] == found[1:]
        assert parse_model(text).options == found[2]


def test_an_option_that_is_none_is_refused():
    """What stands behind a question mark must be key=value."""
    with pytest.raises(RunError, match="'oops' is not key=value"):
        parse_model("pyiqa:musiq?oops")


def test_what_nobody_states_is_measured_and_stands_in_the_record(place):
    """Range holds the clean scores and those under noise; gradient and direction are the model's own."""
    pixels, labels = images()
    tensors = [iqa_tensor(each) for each in pixels]
    up = measured(as_entrant("module:edges_of_mine:Edges"), tensors, labels)
    down = measured(as_entrant("module:edges_of_mine:Edges?sign=-1&direction=auto"), tensors, labels)
    cut = measured(as_entrant("module:edges_of_mine:cut"), tensors, labels)
    low, high = up.model.spec.score_range
    scores = [float(up.model(each[None]).detach()) for each in tensors]
    assert low < min(scores) < max(scores) < high < low + 2 * (max(scores) - min(scores))
    assert up.model.spec.options["measured"] == "range,gradient"
    assert (up.model.spec.has_gradient, cut.model.spec.has_gradient) == (True, False)
    assert not down.model.spec.higher_is_better
    assert any("direction" in note or "better" in note for note in down.card.notes)
    for entrant in (up, down, cut):
        again = as_entrant(entrant.argument)
        assert again.model.spec == entrant.model.spec
        assert again.sha256 == entrant.sha256
        assert again.model.unknown == ()
    with pytest.raises(RunError, match="labels"):
        measured(as_entrant("module:edges_of_mine:Edges?direction=auto"), tensors, None)


def iqa_tensor(pixels):
    """Return a uint8 array as a tensor in [0, 1]."""
    import torch

    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def test_equal_scores_leave_no_range_to_measure(place):
    """A model that says the same of everything is refused in words."""
    flat = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(RunError, match=r"\?range=LOW,HIGH states one"):
        measured(as_entrant("module:edges_of_mine:same?takes=arrays"), [iqa_tensor(flat)] * 2, None)


@pytest.mark.parametrize("label", ["", "mine="])
@pytest.mark.parametrize("target", ["Edges?sign=-1&direction=auto", "cut", "arrays?takes=arrays"])
def test_what_stands_behind_defences_is_measured_as_it_is_alone(place, target, label):
    """Range, gradient, direction and name are the own of the model behind, however often it was asked."""
    tensors, labels = [iqa_tensor(pixels) for pixels in images()[0]], images()[1]
    alone = measured(as_entrant(f"module:edges_of_mine:{target}"), tensors, labels)
    given = as_entrant(f"{label}module:edges_of_mine:{target}|blur:1")
    assert is_unfinished(given)
    for _ in range(2):  # the model behind is one object: at the second time it is whole already
        bare, defended = (measured(each, tensors, labels) for each in with_bare([given]))
        assert bare.sha256 == alone.sha256
        for field in ("score_range", "has_gradient", "options"):
            assert getattr(defended.model.spec, field) == getattr(alone.model.spec, field)
        assert bare_label(defended, [bare, defended]) == bare.label == alone.label
        assert not is_unfinished(defended)
        again = as_entrant(defended.argument)
        assert (again.sha256, again.model.spec) == (defended.sha256, defended.model.spec)
    assert defended.model(tensors[0][None]).item() == pytest.approx(
        alone.model(as_entrant("linear|blur:1").model.defences[0].apply(tensors[0][None], [])).item()
    )


@pytest.mark.parametrize("behind", ["", "|blur:1"])
def test_words_as_given_to_a_run_are_that_run_s_model(place, behind):
    """What was measured then is in its manifest; what is stated otherwise now makes another model."""
    tensors, labels = [iqa_tensor(pixels) for pixels in images()[0]], images()[1]
    words = "mine=module:edges_of_mine:Edges?sign=-1&direction=auto"
    then = measured(as_entrant(words + behind), tensors, labels)
    card = then.card.model_dump(mode="json")
    record = ModelRecord(name=then.label, sha256=then.sha256, card=card, checkpoint=None, checks={})
    low, high = (float(end) for end in card["options"]["range"].split(","))
    for query in ("", "&gradient=true", f"&range={card['options']['range']}"):
        assert as_recorded(as_entrant(f"{words}{query}{behind}"), record).sha256 == then.sha256
    assert as_recorded(as_entrant(then.argument), record).sha256 == then.sha256
    for query in (f"&range={low},{high + 1}", "&gradient=false", "&pixels=255"):
        assert as_recorded(as_entrant(f"{words}{query}{behind}"), record).sha256 != then.sha256


@pytest.mark.parametrize(
    ("target", "words"),
    [("Broken", "model 'one': AttributeError: .*no_such_layer"), ("Pair", r"model 'one': .* not \(2, 2\)")],
)
def test_a_model_that_raises_where_its_card_is_measured_is_one_error(place, target, words):
    """It names the model: several may be made in the same way."""
    entrant = as_entrant(f"one=module:edges_of_mine:{target}")
    with pytest.raises(RunError, match=words):
        measured(entrant, [iqa_tensor(smooth(i).copy()) for i in range(2)], None)


def labelled(folder):
    """Write four images and return their paths with labels."""
    from PIL import Image

    pairs = []
    for i in range(4):
        Image.fromarray(smooth(i)).save(folder / f"{i}.png")
        pairs.append((str(folder / f"{i}.png"), i / 3))
    return pairs


@pytest.mark.slow
def test_black_boxes_run_and_a_manifest_decides_no_code(place):
    """Workers make a command, a function on arrays and a white box again; a manifest's command is not run."""
    command = f"cmd:{shlex.join([sys.executable, 'scorer.py'])} {{files}}"
    models = [command, "module:edges_of_mine:arrays?takes=arrays", "module:edges_of_mine:Edges"]
    run = iqa.attack(
        str(place / "queries.toml"),
        models,
        store=place / "store",
        progress=False,
        executor="processes",
        data=labelled(place),
        mos_range=(0, 1),
    )
    assert run.manifest.status == "complete"
    records = {record.name: record for record in run.manifest.models}
    assert set(records) == {"scorer", "arrays", "Edges"}
    assert records["scorer"].card["has_gradient"] is False
    attacked = run.rows().query("attack == 'square'")
    assert (attacked["adv_score"] >= attacked["clean_score"] - 1e-6).groupby(
        attacked["model"]
    ).mean().min() > 0.5
    for name, record in records.items():
        with pytest.raises(RunError, match="say it where a command takes it"):
            from_record(record)
        assert (name, as_entrant(record.argument).sha256) == (name, record.sha256)
    found = iqa.verify(
        run.manifest.run, store=place / "store", sample=1, progress=False,
        models={name: record.argument for name, record in records.items()},
        data=iqa.open_data(labelled(place), mos_range=(0, 1)),
    )  # fmt: skip
    assert found.findings == []
    found = iqa.verify(
        run.manifest.run, store=place / "store", sample=1, progress=False, models=models,
        data=iqa.open_data(labelled(place), mos_range=(0, 1)),
    )  # fmt: skip
    assert found.findings == []


@pytest.mark.parametrize(
    ("target", "name", "state"),
    [
        ("module:edges_of_mine:Edges?range=0,1", "gradient_agrees", "ok"),
        ("module:edges_of_mine:Batchy?range=-1,1", "batch_independent", "wrong"),
        ("module:edges_of_mine:Random?range=0,2", "repeatable", "wrong"),
        ("module:edges_of_mine:cut", "gradient_finite", "ok"),
        ("module:edges_of_mine:cut?gradient=true&range=0,1", "gradient_finite", "wrong"),
        ("module:edges_of_mine:Edges?range=0,1000", "input", "note"),
        ("module:edges_of_mine:Edges?range=500,1000", "score_range", "note"),
        ("module:edges_of_mine:Nothing", "made", "wrong"),
        ("module:edges_of_mine:Large?range=0,1&gradient=true", "memory", "wrong"),
    ],
)
def test_check_says_what_is_wrong_and_what_to_do(place, target, name, state):
    """Each fault is found in its line; where something is to be done, it says what."""
    found = iqa.check_model(target, [smooth(i) for i in range(2)])
    line = {line.name: line for line in found.results}[name]
    assert line.state == state
    assert found.usable == (state != "wrong")
    assert state == "ok" or line.todo or name == "made"


def test_a_live_object_whose_state_has_no_hash_would_be_refused(tmp_path):
    """As a run refuses it: an open file says nothing of what is read from it."""
    with (tmp_path / "log").open("w") as log:
        model = iqa.wrap(lambda images: images.mean((1, 2, 3)), name="live", score_range=(0, 1))
        model.log = log
        found = iqa.check_model(model, [smooth(0)] * 2)
    assert not found.usable
    assert "live" in found.results[-1].what
    assert "cannot be read" in found.results[-1].what


def test_a_gradient_that_was_not_found_is_not_taken_for_wanted(place):
    """Who forgot a `no_grad` is told where to look, not only to state what was measured."""
    todo = {
        target: {line.name: line.todo for line in iqa.check_model(target, [smooth(0)] * 2).results}["card"]
        for target in ("module:edges_of_mine:cut", "module:edges_of_mine:Edges")
    }
    assert ["look for detach()" in words for words in todo.values()] == [True, False]


def test_a_direction_that_looks_reversed_is_said(place):
    """A score that is least at the clean images rises with every distortion."""
    point = smooth(0).std() / 255
    found = iqa.check_model(
        f"module:edges_of_mine:away?takes=arrays&range=0,1&point={point}", [smooth(0)] * 2
    )
    line = {line.name: line for line in found.results}["direction"]
    assert line.state == "note"
    assert "?direction=lower" in line.todo
    assert found.usable


def smooth(seed):
    """Return a smooth random image."""
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC))


def test_check_exits_with_1_where_a_run_would_refuse(place):
    """The command prints every line and its exit code is the verdict's."""
    runner = CliRunner()
    from PIL import Image

    for i in range(2):
        Image.fromarray(smooth(i)).save(place / f"{i}.png")
    files = [str(place / f"{i}.png") for i in range(2)]
    good = runner.invoke(app, ["models", "check", "module:edges_of_mine:Edges?range=0,1", *files])
    bad = runner.invoke(app, ["models", "check", "module:edges_of_mine:Batchy?range=-1,1", *files])
    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert "Edges can be attacked" in good.output
    assert "score image by image inside" in bad.output


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_registered_model_takes_weights_from_a_plain_file(tmp_path, monkeypatch, suffix):
    """With a beginning taken off their names; another content is another model, made again from its words."""
    monkeypatch.chdir(tmp_path)
    given = create_model("linear", seed=7)
    tensors = {f"encoder.q.{name}": tensor.clone() for name, tensor in given.state_dict().items()}
    save = save_file if suffix == ".safetensors" else torch.save
    save(tensors, f"mine{suffix}")
    found = as_entrant(f"linear?weights=mine{suffix}&strip=encoder.q.")
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(found.model(image), given(image))
    assert (found.label, found.note) == ("mine", None)
    assert found.card.initial_weights == f"file:mine{suffix}"
    monkeypatch.chdir("/")
    again = as_entrant(found.argument)
    assert (again.label, again.sha256) == (found.label, found.sha256)
    save({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / f"mine{suffix}")
    assert as_entrant(found.argument).sha256 != found.sha256


def test_weights_that_do_not_fit_a_registered_model_are_listed(tmp_path, monkeypatch):
    """Names that are missing and too many, and what may be taken off; a file that is not there is named."""
    monkeypatch.chdir(tmp_path)
    save_file({"encoder.odd": torch.zeros(2)}, "odd.safetensors")
    listed = r"odd\.safetensors: does not fit .*missing: bias.*encoder\.odd.*begin with encoder\..*\?strip="
    with pytest.raises(BadCheckpoint, match=listed):
        as_entrant("linear?weights=odd.safetensors")
    with pytest.raises(BadCheckpoint, match=r"none\.pth"):
        as_entrant("linear?weights=none.pth")


def test_every_check_is_asked_in_words():
    """No line of `models check` shows the name of a check in the place of what it asks."""
    found = iqa.check_model("linear")
    assert found.usable
    assert not [line for line in found.results if line.what.startswith(line.name)]


PLUGIN = """
from iqa_models import create_model, register_model

@register_model("own_weights")
def own_weights(weights="none"):
    model = create_model("linear")
    model.spec = model.spec.replace(name="own_weights", options={"weights": weights})
    return model
"""


def test_an_option_of_a_builder_s_own_stays_its_own(tmp_path):
    """A user's builder that has `weights` gets the word as it was written; nothing is loaded."""
    file = tmp_path / "plugin_with_weights.py"
    file.write_text(PLUGIN)
    (entrant,) = as_entrants("own_weights?weights=heavy", plugins=run_plugins([file]))
    assert entrant.card.options == {"weights": "heavy"}


def test_a_registered_model_with_a_trunk_wants_no_other_weights(tmp_path):
    """All of them are in the file: a trunk's own are not looked for."""
    options = {"pretrained": "none", "width": 16, "protocol": "native"}
    given = create_model("srm_efficientnet_lite0", **options, seed=3)
    save_file({k: v.contiguous() for k, v in given.state_dict().items()}, tmp_path / "srm.safetensors")
    found = as_entrant(
        f"srm_efficientnet_lite0?width=16&protocol=native&seed=5&weights={tmp_path}/srm.safetensors"
    )
    assert all(torch.equal(v, given.state_dict()[k]) for k, v in found.model.state_dict().items())
