"""An attack on a copy of a model reports the model's own scores and losses; the way is the copy's."""

import pytest
import torch

from iqa_attacks import ThreatModel, create_attack, stored_score
from iqa_models import QualityModel, create_model
from iqa_models.frozen import frozen

OBJECTIVES = ("mse", "drift", "pairwise_inversion", "raise", "lower")
N, BATCH = 5, 3
"""Images, and images of a batch: the last batch is a short one."""


class Off(QualityModel):
    """A copy that is off: it scores a little higher and steeper than its model, and counts its calls."""

    def __init__(self, model):
        super().__init__(model.spec)
        self.model = model
        self.calls = 0
        self.eval()

    def predict(self, images):
        self.calls += 1
        return 1.1 * self.model.predict(images) + 0.01


def images():
    generator = torch.Generator().manual_seed(0)
    return [0.2 + 0.6 * torch.rand(3, 32, 32, generator=generator) for _ in range(N)]


IDS = [f"image-{i}" for i in range(N)]
MOS = torch.tensor([0.1, 0.9, 0.4, 0.6, 0.3], dtype=torch.float64)


def attack(kind="pgd", **settings):
    if kind in ("pgd", "mifgsm"):
        settings = {"steps": 4, "step_size": 1 / 255, **settings}
    if kind == "pgd":
        settings = {"restarts": 2, "report_steps": (1, 2), **settings}
    return create_attack(
        kind, threat=ThreatModel("inf", 4 / 255), objectives=OBJECTIVES, batch=BATCH, **settings
    )


@pytest.fixture(scope="module")
def model():
    """A small model that curves."""
    return create_model("cheat_none")


@pytest.fixture(scope="module")
def network():
    """One with batch norms, which a frozen copy folds."""
    made = create_model("demo_resnet10t")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # an untrained head scores all images alike
        made.head.linear.weight.normal_(0, 0.5, generator=generator)
    return made


@pytest.fixture(scope="module")
def plain(model):
    """What PGD finds without a copy; only to be read."""
    return run(attack(), model)


@pytest.fixture(scope="module")
def by_itself(model):
    """What it finds where the model is its own copy; only to be read."""
    return run(attack(), model, gradients=model)


def run(chosen, model, **options):
    return chosen.run(model, images(), IDS, MOS, **options)


def own_score(model, pixels):
    return stored_score(model, pixels, seed=0, image_id="", draws=None)


def expected_loss(objective, scores, clean):
    """Return every image's loss, written from the formulas."""
    if objective == "mse":
        return (scores - MOS).square()
    if objective == "drift":
        return (scores - clean).square()
    if objective in ("raise", "lower"):
        return scores if objective == "raise" else -scores
    losses = []
    for first in range(0, N, BATCH):
        f, y = scores[first : first + BATCH], MOS[first : first + BATCH]
        terms = [
            torch.nn.functional.softplus(-(f[i] - f[j]) / 0.1)
            for i in range(len(f))
            for j in range(len(f))
            if y[i] > y[j]
        ]
        losses += [torch.stack(terms).mean()] * len(f)
    return torch.stack(losses)


@pytest.mark.parametrize("kind", ["pgd", "mifgsm", "apgd", "fgsm"])
def test_scores_and_losses_are_the_models_own(model, kind):
    """Whatever the copy says, scores are the model's of the same pixels, and losses follow from them."""
    chosen = attack(kind, steps=5) if kind == "apgd" else attack(kind)
    result = run(chosen, model, gradients=Off(model))
    clean = torch.tensor([own_score(model, pixels) for pixels in images()], dtype=torch.float64)
    assert torch.equal(result.clean, clean)
    distinct = {id(f.example): f for f in result.found}
    scores = {
        key: stored_score(model, f.example.pixels, seed=0, image_id=IDS[f.image], draws=None)
        for key, f in distinct.items()
    }
    for steps in {f.steps for f in result.found}:
        for objective in OBJECTIVES:
            found = sorted(
                (f for f in result.found if (f.objective, f.steps) == (objective, steps)),
                key=lambda f: f.image,
            )
            own = [scores[id(f.example)] for f in found]
            assert [f.example.score for f in found] == own
            expected = expected_loss(objective, torch.tensor(own, dtype=torch.float64), clean)
            torch.testing.assert_close(
                torch.tensor([f.loss for f in found], dtype=torch.float64), expected, rtol=1e-9, atol=1e-12
            )


def test_the_copy_is_asked_for_the_way_and_no_model_is_as_before(model):
    """The search's work is the copy's: of the model are clean scores and what was found, one by one."""
    copy, own = Off(model), Off(model)
    result = run(attack(), own, gradients=copy)
    distinct = {id(f.example) for f in result.found}
    assert own.calls == N + len(distinct)
    assert copy.calls > N
    without = Off(model)
    plain = run(attack(), without)
    assert without.calls == copy.calls
    assert plain.cost == result.cost


def test_scores_that_are_given_are_not_asked_of_the_model(model):
    """Clean ones and those of what was found; the same is found, bit for bit."""
    copy, own = Off(model), Off(model)

    def scores(versions, ids):
        return [own_score(copy, pixels) for pixels in versions]

    asked = run(attack(), copy, gradients=copy)
    given = run(attack(), own, gradients=copy, scores=scores)
    assert own.calls == 0
    assert torch.equal(given.clean, asked.clean)
    for a, b in zip(given.found, asked.found, strict=True):
        assert (a.image, a.objective, a.steps, a.loss) == (b.image, b.objective, b.steps, b.loss)
        assert torch.equal(a.example.pixels, b.example.pixels)
        assert a.example.score == b.example.score


def test_the_model_itself_as_its_copy_changes_nothing(plain, by_itself):
    """Pixels, scores, losses and counts are those of an attack without a copy, bit for bit."""
    assert plain.cost == by_itself.cost
    for a, b in zip(plain.found, by_itself.found, strict=True):
        assert (a.image, a.objective, a.steps) == (b.image, b.objective, b.steps)
        assert torch.equal(a.example.pixels, b.example.pixels)
        assert b.example.score == pytest.approx(a.example.score, rel=1e-5)  # alone, not in a chunk
        assert a.loss is None or b.loss == pytest.approx(a.loss, rel=1e-4, abs=1e-5)


def test_objectives_that_shared_an_example_still_do(plain, by_itself):
    """What is scored once is stored once: entries of one point hold one object."""
    assert len({id(f.example) for f in by_itself.found}) == len({id(f.example) for f in plain.found})


@pytest.mark.parametrize("kind", ["square", "noise"])
def test_an_attack_without_gradients_asks_the_model_itself(model, kind):
    """A copy is made for gradients; queries are the model's."""
    copy = Off(model)
    settings = {"queries": 4} if kind == "square" else {"samples": 2}
    chosen = create_attack(
        kind, threat=ThreatModel("inf", 4 / 255), objectives=("raise", "lower"), **settings
    )
    result = run(chosen, model, gradients=copy)
    assert copy.calls == 0
    plain = run(chosen, model)
    assert [f.loss for f in result.found] == [f.loss for f in plain.found]


def test_losses_through_jpeg_stay_what_they_are(model):
    """They are of scores through JPEG; the scores of what was found are the model's own."""
    chosen = attack(jpeg_qualities=(75,), report_steps=())
    plain = run(chosen, model)
    result = run(chosen, model, gradients=model)
    assert [f.loss for f in result.found] == [f.loss for f in plain.found]
    assert [f.example.score for f in result.found] == [f.example.score for f in plain.found]


def test_a_frozen_copy_finds_as_strong_examples(network):
    """Up and down, the frozen copy moves the model's score as far as the model's own gradient, within 2 %."""
    gains = []
    for copy in (None, frozen(network)):
        result = run(attack(report_steps=()), network, gradients=copy)
        way = {"raise": 1, "lower": -1}
        gains.append(
            sum(
                way[f.objective] * (f.example.score - float(result.clean[f.image]))
                for f in result.found
                if f.objective in way and f.steps == 4
            )
        )
    assert gains[0] > 0
    assert gains[1] == pytest.approx(gains[0], rel=0.02)
