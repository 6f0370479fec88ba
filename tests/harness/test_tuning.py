"""How gradients are computed is chosen by measurement, never at the price of strength, and kept as data."""

import json

import pytest
import torch
from torch import nn

from iqa_attacks import ThreatModel, create_attack
from iqa_attacks.seeding import start_generator
from iqa_harness.errors import RunError
from iqa_harness.machine import tuning
from iqa_harness.machine.tuning import Copies, Form, Tuning, attack_gain, known, read_choices, tune
from iqa_models import QualityModel, create_model
from iqa_models.frozen import frozen

SHA256 = "0" * 64
ENOUGH = 1e6
"""Gradients of a run long enough to tune anything for."""


class Wasteful(QualityModel):
    """A small network that is asked twice for every image: a copy that asks once is the same function."""

    def __init__(self, times=2):
        super().__init__(create_model("linear").spec.replace(name="wasteful"))
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 24, 3), nn.GELU(), nn.Conv2d(24, 24, 3), nn.GELU(), nn.Conv2d(24, 1, 3)
        )
        self.times = times
        self.eval()

    def predict(self, images):
        return torch.stack([self.net(images).mean((1, 2, 3)) for _ in range(self.times)]).mean(0)


class Coarse(Wasteful):
    """A planted bad path: fast, because it looks at every fourth pixel of the pooled image only."""

    def predict(self, images):
        return super().predict(nn.functional.avg_pool2d(images, 4))


def images(count=4, side=56):
    generator = torch.Generator().manual_seed(0)
    return [0.2 + 0.6 * torch.rand(3, side, side, generator=generator) for _ in range(count)]


def chosen(model, copies, **options):
    return tune(model, SHA256, images(), chunk=4, gradients=ENOUGH, copies=copies, **options)


def test_a_faster_copy_of_the_same_function_is_taken():
    """Half the work, the same gradient: the record says what it saves, at the strength of the plain one."""
    made = chosen(Wasteful(), lambda model, form: Wasteful(times=1))
    assert made.form in tuning.FORMS["fast"]
    assert made.tuned_ms < made.plain_ms
    assert made.strength == pytest.approx(1, abs=0.02)


def test_a_faster_copy_that_loses_strength_is_no_choice():
    """However fast it is, the model as it stands is taken, and the record says why."""
    model = Wasteful()
    made = chosen(model, lambda model, form: Coarse(times=1))
    assert made.form == Form()
    assert made.copy_of(model) is model
    assert "of the gain" in made.why


def test_a_gradient_that_is_right_once_and_a_score_that_misleads_is_no_choice():
    """The first step is the plain one's, but best iterates are chosen by scores that fall as they rise."""

    class Reversed(Wasteful):
        def predict(self, images):
            score = super().predict(images)
            # The slope of the score, under values that say the opposite.
            return score - 2 * (score - 0.1).detach()

    made = chosen(Wasteful(), lambda model, form: Reversed(times=1))
    assert made.form == Form()


def test_a_slower_copy_is_no_choice():
    """A copy that does half as much again is left, though it is the same function."""
    made = chosen(Wasteful(), lambda model, form: Wasteful(times=3))
    assert made.form == Form()
    assert made.why.startswith("nothing else pays")


def test_a_copy_that_fails_is_no_choice():
    """A form that a device cannot compute, or whose gradient is not finite, is left, with its error."""

    class Failing(Wasteful):
        def predict(self, images):
            raise RuntimeError("no kernel for this precision\ntraceback")

    class Infinite(Wasteful):
        def predict(self, images):
            return super().predict(images) / 0

    for made_by, words in ((Failing, "no kernel for this precision"), (Infinite, "not finite")):
        made = chosen(Wasteful(), lambda model, form, made_by=made_by: made_by(times=1))
        assert made.form == Form()
        assert words in made.why
        assert "traceback" not in made.why


def test_a_copy_that_cannot_be_made_or_fails_by_any_error_is_no_choice():
    """A user's model may raise anything in another precision, or on the probe: the run goes on without."""

    def refuses(model, form):
        raise ValueError("needs 65 pixels")

    class Typed(Wasteful):
        def predict(self, images):
            raise TypeError("Got unsupported ScalarType BFloat16")

    for copies, words in ((refuses, "needs 65"), (lambda model, form: Typed(times=1), "ScalarType")):
        made = chosen(Wasteful(), copies)
        assert made.form == Form()
        assert made.plain_ms is not None
        assert words in made.why


def test_a_copy_that_overflows_under_attack_leaves_the_others():
    """The fastest copy's score is not finite a step away: the next one is taken, at full strength."""
    clean = torch.stack(images())
    slow, fast = tuning.FORMS["fast"]

    class Overflows(Wasteful):
        def predict(self, images):
            seen = (images[:, None] == clean).flatten(2).all(2).any(1)
            return torch.where(seen, super().predict(images), torch.inf)

    def copies(model, form):
        return Overflows(times=1) if form == fast else Wasteful(times=3)

    made = tune(Wasteful(times=12), SHA256, images(), chunk=4, gradients=ENOUGH, copies=copies)
    assert made.form == slow
    assert made.strength == pytest.approx(1, abs=0.02)
    assert "not finite" in made.why


def test_a_model_that_cannot_be_copied_is_taken_as_it_is():
    """There is no candidate beside it."""
    model = Wasteful()
    made = chosen(model, lambda model, form: model)
    assert made.copy_of(model) is model


def test_what_is_not_worth_it_is_not_tuned():
    """Tuning that is off, a short run and a tiny model all leave the model as it is, chunk included."""
    model, few = Wasteful(), 100

    def never(model, form):
        raise AssertionError("nothing is to be tried")

    off = tune(model, SHA256, images(), chunk=8, mode="off", gradients=ENOUGH, copies=never)
    short = tune(model, SHA256, images(), chunk=8, gradients=few, copies=never)
    tiny = tune(create_model("linear"), SHA256, images(side=16), chunk=8, gradients=ENOUGH, copies=never)
    for made in (off, short, tiny):
        assert (made.form, made.chunk) == (Form(), 8)
        assert made.copy_of(model) is model
    assert len({off.why, short.why, tiny.why}) == 3


def test_the_chunk_never_grows():
    """The chunk that was asked for bounds the memory: a smaller one may be chosen, no larger one."""
    made = tune(Wasteful(), SHA256, images(5), chunk=5, gradients=ENOUGH)
    assert 1 <= made.chunk <= 5


def test_the_short_attack_gains_what_a_linear_score_gives():
    """Each way it ends at clip(start + steps of 1/255 along the signs), known in closed form."""
    model = create_model("linear", dtype="float64")
    few = [image.double() for image in images(3, side=16)]
    weight = model.weight(16, 16).detach()
    expected = 0.0
    threat = ThreatModel("inf", tuning.EPSILON)
    for i, image in enumerate(few):
        start = threat.random_start(image, start_generator(0, f"tuning-{i}", 0)) - image
        for way in (1, -1):
            moved = start + way * tuning.STEPS * tuning.STEP_SIZE * weight.sign()
            moved = moved.clamp(-tuning.EPSILON, tuning.EPSILON)
            expected += way * float((weight * moved).mean())
    assert attack_gain(model, model, few) == pytest.approx(expected, rel=1e-9)


def test_one_step_along_other_signs_gains_their_share():
    """All signs right gives 1, all wrong -1, half of equal slopes right 0."""
    slope = torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert tuning._one_step(slope, slope * 7) == 1
    assert tuning._one_step(slope, -slope) == -1
    assert tuning._one_step(slope, slope.abs()) == 0
    assert tuning._one_step(slope * 0, slope) == 0


def test_bfloat16_must_save_more_than_full_precision():
    """It changes results by more than rounding: a tenth saved beyond the exact form is no reason."""
    plain, exact, half = Form(), Form(True, True), Form(True, True, "bfloat16")
    assert tuning._worth_it({plain: 1.0, exact: 0.7, half: 0.63}) == [exact]
    assert tuning._worth_it({plain: 1.0, exact: 0.7, half: 0.35}) == [half, exact]
    assert tuning._worth_it({plain: 1.0, exact: 0.97, half: 0.9}) == []


def test_tensor_float_32_must_save_something_beyond_full_precision():
    plain, exact, less = Form(), Form(True, True, graphed=True), Form(True, True, "tf32", graphed=True)
    assert tuning._worth_it({plain: 1.0, exact: 0.7, less: 0.69}) == [exact]
    assert tuning._worth_it({plain: 1.0, exact: 0.7, less: 0.5}) == [less, exact]


def test_on_cuda_passes_are_recorded_and_a_choice_without_the_word_is_read():
    """Every precision is tried recorded; a manifest of before says nothing of recordings."""
    assert {form.precision for form in tuning.CUDA_FORMS["fast"] if form.graphed} == {
        "model",
        "tf32",
        "float16",
        "bfloat16",
    }
    assert not any(form.compiled and form.graphed for form in tuning.CUDA_FORMS["full"])
    form = Form(True, True, "tf32", graphed=True)
    assert form.words == "batch norms folded, channels last, TensorFloat-32, recorded"
    choice = tuning.Tuning(model_sha256=SHA256, device="card", chunk=64, why="faster", **form._asdict())
    stored = choice.model_dump()
    assert tuning.read_choices([stored]) == (choice,) and choice.form == form
    del stored["graphed"]
    assert tuning.read_choices([stored])[0].form == form._replace(graphed=False)


def test_a_choice_survives_json_and_is_found_by_model_and_device():
    """Read back from a manifest it is equal; another model or device has none; other data is refused."""
    made = chosen(Wasteful(), lambda model, form: Wasteful(times=1))
    stored = json.loads(json.dumps([made.model_dump(mode="json")]))
    read = read_choices(stored)
    assert read == (made,)
    assert known(read, SHA256, made.device) == known(read, SHA256) == made
    assert known(read, "1" * 64) is None
    assert known(read, SHA256, "another device") is None
    for damaged in ([{**stored[0], "precision": "int1"}], [{}], "choices", [{**stored[0], "chunk": 0}]):
        with pytest.raises(RunError, match="tuning of a manifest cannot be read"):
            read_choices(damaged)


def test_a_copy_is_made_once_and_only_where_something_was_chosen():
    """One copy a process and hash, none for the plain choice; the chunk is never above the run's."""
    model = create_model("demo_resnet10t")
    record = Tuning(model_sha256=SHA256, device="cpu", fold=True, chunk=2, why="fixed")
    plain = Tuning(model_sha256="1" * 64, device="cpu", chunk=4, why="fixed")
    copies = Copies([record, plain], "cpu")
    assert copies.of(model, SHA256) is copies.of(model, SHA256) is not model
    assert copies.of(model, "1" * 64) is None
    assert copies.of(model, "2" * 64) is None
    assert [copies.chunk(c * 64, 8) for c in "012"] == [2, 4, 8]
    assert copies.chunk(SHA256, 1) == 1


def test_equal_choices_give_equal_attacks():
    """Two copies made by one record lead an attack to the same pixels, bit for bit."""
    model = create_model("demo_resnet10t")
    record = Tuning(model_sha256=SHA256, device="cpu", fold=True, channels_last=True, chunk=2, why="fixed")
    attack = create_attack(
        "pgd", threat=ThreatModel("inf", 4 / 255), objectives=("raise", "lower"), steps=3, step_size=1 / 255
    )
    few = images(2, side=64)
    first, second = (
        attack.run(record.copy_of(model), few, ["a", "b"], torch.tensor([0.2, 0.8]), chunk=record.chunk)
        for _ in range(2)
    )
    pairs = list(zip(first.found, second.found, strict=True))
    assert all(torch.equal(a.example.pixels, b.example.pixels) for a, b in pairs)
    assert all(a.loss == b.loss for a, b in pairs)


def test_a_real_model_is_tuned_and_stays_itself():
    """Of a network with batch norms the choice reaches the plain attack's gain; its weights are untouched."""
    model = create_model("demo_resnet10t")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = tune(model, SHA256, images(side=48), chunk=4, gradients=ENOUGH)
    assert made.strength is None or made.strength >= tuning.SAME_STRENGTH
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert frozen(model) is not model
