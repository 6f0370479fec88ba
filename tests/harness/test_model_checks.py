"""What is measured of a model before a run: its gradient block by block, images spread over the set."""

import numpy as np
import pytest
import torch

from iqa_harness.evidence.judgement import BY_CHECK, flags_of_checks
from iqa_harness.evidence.model_checks import check_again, check_model, checked_images
from iqa_models import LinearQuality, create_model


def corner(images):
    """The images, whose gradient passes in a sixteenth of the area only."""
    mask = torch.zeros_like(images)
    mask[..., : images.shape[-2] // 4, : images.shape[-1] // 4] = 1
    return images * mask + (images * (1 - mask)).detach()


def loud(images):
    """Zero on every 8-bit image, and a gradient in four pixels that drowns all others."""
    i = torch.arange(4, 32, 8)
    levels = images[:, 0, i, i] * 255
    return 10 * (levels - levels.detach().round()).mean(1) / 255


class Masked(LinearQuality):
    """Scores as the linear model; its gradient is let through in part."""

    hide = False
    decoy = False
    spared = ()
    """Images whose gradient is honest, by the score they have."""

    def predict(self, images):
        value, other = super().predict(images), super().predict(corner(images))
        masked = value.detach() + other - other.detach()
        known = ((value.detach()[:, None] - torch.tensor(self.spared)).abs() < 1e-2).any(1)
        score = torch.where(known, value, masked) if self.hide else value
        return score + loud(images) if self.decoy else score


def masked(**options):
    """Check such a model on eight images; return the error of its gradient."""
    model = create_model("linear", seed=10, scale=40).eval()
    model.__class__ = Masked
    images = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    images = [(255 * image).round() / 255 for image in images]
    model.spared = [model(image[None]).item() for image in images[: options.pop("spare", 0)]]
    for name, value in options.items():
        setattr(model, name, value)
    return check_model(model, images)["gradient_agrees"]


def test_the_gradient_is_compared_block_by_block():
    """An honest corner or a loud pixel does not speak for the whole image, nor do two images for eight."""
    assert masked().value < 0.05
    assert masked().passed
    for options in ({"hide": True}, {"hide": True, "decoy": True}, {"hide": True, "spare": 2}):
        found = masked(**options)
        assert not found.passed
        assert found.value > 0.57
        assert "16 blocks of 8 images" in found.detail


class Anchored(LinearQuality):
    """After some calls it moves a tenth as far from the first score it saw of an image."""

    calls = 0
    honest_calls = 0

    def predict(self, images):
        value = super().predict(images)
        self.calls += 1
        if self.calls <= self.honest_calls:
            return value
        anchors = value.detach().round(decimals=1)
        return anchors + 0.1 * (value - anchors)


@pytest.mark.parametrize("honest_calls", [10**6, 40])
def test_a_model_that_is_flatter_after_its_calls_has_changed(honest_calls):
    """Its gradient is the slope of its score before and after; the slope is not the same."""
    model = create_model("linear", seed=10, scale=4).eval()
    model.__class__, model.honest_calls = Anchored, honest_calls
    images = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    before = check_model(model, images)
    assert all(check.passed for check in before.values())
    for _ in range(40):
        model(torch.stack(images))
    after = check_again(model, images, before)
    assert after.passed == (honest_calls > 40)
    assert after.value == pytest.approx(0 if after.passed else 0.9, abs=0.02)


class OneCorner(LinearQuality):
    """Looks at one block only; `slope` times the gradient it says it has is the one it has."""

    slope = 1.0

    def predict(self, images):
        seen = images[..., :4, :4].mean((1, 2, 3))
        return self.slope * seen.detach() + seen - seen.detach()


@pytest.mark.parametrize(("slope", "passes"), [(1.0, True), (-1.0, False)])
def test_a_score_in_one_place_is_checked_over_the_whole_image(slope, passes):
    """A block that decides nothing has nothing to compare; a wrong sign in the one that does is found."""
    model = create_model("linear")
    model.__class__, model.slope = OneCorner, slope
    images = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    found = check_model(model, images)["gradient_agrees"]
    assert "over whole images" in found.detail
    assert found.passed == passes


@pytest.mark.parametrize("trains", [False, True])
def test_a_model_that_changes_itself_is_not_repeatable(trains):
    """A counter in its buffers, or a part left in training mode: what every attack refuses is said before."""

    class Counts(LinearQuality):
        def predict(self, images):
            self.calls.add_(0 if trains else 1)
            return super().predict(images)

    model = create_model("linear")
    model.__class__ = Counts
    model.register_buffer("calls", torch.zeros(()))
    model.norm = torch.nn.BatchNorm2d(3).train(trains)
    checks = check_model(model, [torch.rand(3, 16, 16) for _ in range(2)])
    assert checks["finite_scores"].passed
    assert not checks["repeatable"].passed
    assert ("training mode" if trains else "calls") in checks["repeatable"].detail
    assert next(f for f in flags_of_checks(checks) if f.flag == BY_CHECK["repeatable"]).raised


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 100])
def test_the_images_checked_are_spread_over_the_set(count):
    """Up to eight, different ones, both ends among them, and steps that differ by one at most."""
    chosen = checked_images(count)
    assert len(chosen) == len(set(chosen)) == min(8, count)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    steps = np.diff(chosen)
    assert count < 2 or np.ptp(steps) <= 1


@pytest.mark.parametrize(
    ("error", "at", "failed"),
    [(ValueError("bad head"), 0, "finite_scores"), (KeyError("x"), 5, "gradient_finite")],
)
def test_a_model_that_raises_fails_a_check(error, at, failed):
    """With its error in words; what was measured before stands, and memory is the caller's affair."""

    class Raises(LinearQuality):
        calls = 0

        def predict(self, images):
            self.calls += 1
            if self.calls > at:
                raise error
            return super().predict(images)

    model = create_model("linear")
    model.__class__ = Raises
    checks = check_model(model, [torch.rand(3, 16, 16) for _ in range(3)])
    assert checks[failed].passed is False
    assert checks[failed].detail == f"{type(error).__name__}: {error}"
    assert ("repeatable" in checks) == (at > 0)
    assert next(f for f in flags_of_checks(checks) if f.flag == BY_CHECK[failed]).raised
    error, at = torch.OutOfMemoryError("CUDA out of memory"), 0
    with pytest.raises(RuntimeError, match="out of memory"):
        check_model(model, [torch.rand(3, 16, 16) for _ in range(3)])
