"""Threat models as facts: what is inside stays, what is outside lands on the nearest point."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from iqa_attacks import AttackError, BadAttackOption, ThreatModel, UnknownAttack, measure, parse_epsilon


def _pair(seed: int, spread: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(4, 3, 5, 7, generator=generator, dtype=torch.float64)
    return clean + spread * torch.randn(clean.shape, generator=generator, dtype=torch.float64), clean


@pytest.mark.parametrize(
    ("text", "value"),
    [("4/255", 4 / 255), (".5/255", 0.5 / 255), ("0.03", 0.03), (0.25, 0.25), (" 1 / 255 ", 1 / 255)],
)
def test_epsilon_is_read_as_written(text, value):
    """A radius may be a number or a fraction, and means exactly that."""
    assert parse_epsilon(text) == value


@pytest.mark.parametrize(
    "text",
    ["0", "-1/255", "1/0", "eps", "4/255/2", "nan", "inf", "", "1e9999", math.nan, -0.1, 10**400, "9" * 400],
)
def test_bad_epsilon_is_refused(text):
    """A radius that is not positive, finite and plain is refused."""
    with pytest.raises(BadAttackOption):
        parse_epsilon(text)


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_projection_leaves_what_is_inside(norm):
    """A point of the threat model is its own projection, bit for bit."""
    images, clean = _pair(0)
    threat = ThreatModel(norm, 0.2 if norm == "inf" else 1.0)
    inside = threat.project(images, clean)
    assert torch.equal(threat.project(clean, clean), clean)
    assert torch.allclose(threat.project(inside, clean), inside, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("floor", [None, 0.98])
@pytest.mark.parametrize("norm", ["inf", "2", "rmse"])
def test_what_is_admitted_is_admitted_bit_for_bit(norm, floor, dtype):
    """So that what an attack has found is what is stored, whatever is admitted beside it."""
    generator = torch.Generator().manual_seed(1)
    threat = ThreatModel(norm, {"inf": 0.03, "2": 0.5, "rmse": 0.01}[norm], ssim_floor=floor)
    clean = torch.rand(20, 3, 12, 17, generator=generator, dtype=torch.float64).to(dtype)
    moved = (clean + 0.03 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)).to(dtype)
    found = threat.admit(moved, clean)
    assert torch.equal(threat.admit(found, clean), found)


@pytest.mark.slow  # on busy cores the threads wait for each other
def test_threads_and_company_do_not_touch_a_projection():
    """A large image alone on two threads is projected as among others."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(2, 3, 110, 110, generator=generator, dtype=torch.float64)
    images = clean + 0.3 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    threat, threads = ThreatModel("2", 10.0), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone = [threat.project(x, c) for x, c in zip(images.split(1), clean.split(1), strict=True)]
        assert torch.equal(torch.cat(alone), threat.project(images, clean))
    finally:
        torch.set_num_threads(threads)


@given(seed=st.integers(0, 10_000), norm=st.sampled_from(["inf", "2"]), epsilon=st.floats(1e-3, 3))
@settings(max_examples=60, deadline=None)
def test_projection_lands_in_ball_and_box(seed, norm, epsilon):
    """Whatever goes in, what comes out is within the radius and within [0, 1]."""
    images, clean = _pair(seed, spread=2.0)
    epsilon = min(epsilon, 1.0) if norm == "inf" else epsilon
    out = ThreatModel(norm, epsilon).project(images, clean)
    size = measure(out, clean).linf if norm == "inf" else measure(out, clean).l2
    assert (size <= epsilon * (1 + 1e-12)).all()
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outside_lands_on_the_sphere(dtype):
    """A point outside a 2-ball that does not touch the box lands at the radius, in its own direction."""
    clean = torch.full((2, 3, 4, 4), 0.5, dtype=dtype)
    direction = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)
    out = ThreatModel("2", 0.3).project(clean + direction, clean)
    expected = clean + 0.3 * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(out, expected, atol=1e-6 if dtype == torch.float32 else 1e-12)


def test_the_2_norm_projection_is_the_nearest_point():
    """Where ball and box both bind, a general optimiser finds no nearer point of the intersection."""
    generator = torch.Generator().manual_seed(3)
    clean = torch.tensor([0.02, 0.5, 0.97, 0.1, 0.9, 0.4], dtype=torch.float64).view(1, 1, 2, 3)
    target = clean + torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    epsilon = 0.4
    ours = ThreatModel("2", epsilon).project(target, clean).flatten()
    x, y = clean.flatten().numpy(), target.flatten().numpy()
    best = minimize(
        lambda z: ((z - y) ** 2).sum(),
        x,
        jac=lambda z: 2 * (z - y),
        bounds=[(0, 1)] * 6,
        constraints={
            "type": "ineq",
            "fun": lambda z: epsilon**2 - ((z - x) ** 2).sum(),
            "jac": lambda z: -2 * (z - x),
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert best.success
    assert torch.allclose(ours, torch.from_numpy(best.x), atol=1e-5)


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_a_start_is_inside_and_repeats(norm):
    """A random start lies in the threat model and is the same for the same generator state."""
    clean = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(5))
    threat = ThreatModel(norm, 0.1)
    first = threat.random_start(clean, torch.Generator().manual_seed(9))
    again = threat.random_start(clean, torch.Generator().manual_seed(9))
    other = threat.random_start(clean, torch.Generator().manual_seed(10))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    budget = measure(first.unsqueeze(0), clean.unsqueeze(0))
    assert float(budget.linf if norm == "inf" else budget.l2) <= 0.1 * (1 + 1e-6)


def test_directions_are_unit_and_survive_extremes():
    """The steepest step has size one for tiny gradients too, and a zero gradient has no direction."""
    gradient = torch.full((3, 3, 4, 4), 1e-30)
    gradient[1] *= -1e25
    gradient[2] = 0
    steepest = ThreatModel("2", 1.0).direction(gradient)
    assert torch.allclose(steepest.flatten(1).norm(dim=1), torch.tensor([1.0, 1.0, 0.0]))
    assert torch.equal(
        ThreatModel("inf", 1.0).direction(gradient)[:, 0, 0, 0], torch.tensor([1.0, -1.0, 0.0])
    )


def test_measured_sizes_agree_with_their_definitions():
    """A constant change c has linf c, l2 c sqrt(n) and rmse c."""
    clean = torch.full((1, 3, 4, 5), 0.5, dtype=torch.float64)
    budget = measure(clean + 0.1, clean)
    assert float(budget.linf) == pytest.approx(0.1, abs=1e-15)
    assert float(budget.l2) == pytest.approx(0.1 * math.sqrt(60), abs=1e-14)
    assert float(budget.rmse) == pytest.approx(0.1, abs=1e-15)


def test_a_radius_per_pixel_is_the_2_norm_times_the_root_of_the_size():
    """Norm rmse at 1/255 is norm 2 at sqrt(3 H W) / 255, the same change a pixel at every size."""
    for height, width in ((5, 7), (16, 9)):
        generator = torch.Generator().manual_seed(height)
        clean = torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)
        images = clean + torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        per_pixel, root = ThreatModel("rmse", 1 / 255), math.sqrt(3 * height * width)
        whole = ThreatModel("2", root / 255)
        assert torch.equal(per_pixel.project(images, clean), whole.project(images, clean))
        assert torch.allclose(per_pixel.direction(images), whole.direction(images) * root, atol=1e-12)
        noise = per_pixel.sphere_change(clean.shape[1:], torch.Generator().manual_seed(1))
        assert float(noise.square().mean().sqrt()) == pytest.approx(1 / 255)
        start = per_pixel.random_start(clean[0], torch.Generator().manual_seed(1)).unsqueeze(0)
        assert per_pixel.violation(start, clean[:1]) is None
        outside = per_pixel.violation(images, clean)
        assert "norm rmse" in outside or "outside" in outside
    assert math.sqrt(3 * 224 * 224) / 255 == pytest.approx(1.52, abs=0.005)


def test_a_violation_is_named():
    """What lies outside says by what: the box, the radius."""
    clean = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    threat = ThreatModel("inf", 0.1)
    assert threat.violation(clean + 0.1, clean) is None
    assert threat.violation(clean + 0.2, clean) == "size 0.2 in norm inf, radius 0.1"
    assert threat.violation(clean + 0.6, clean) == "pixels outside [0, 1]"
    assert threat.constraint == "ball"


def test_unknown_norm_is_refused():
    """Only norms that exist can be asked for."""
    with pytest.raises(UnknownAttack, match="no norm '1'"):
        ThreatModel("1", 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["inf", "rmse"])
def test_grey_levels_written_as_a_radius_are_refused(norm):
    """Pixels lie in [0, 1]: 8 would be every image there is. A norm of a whole image may be more than 1."""
    with pytest.raises(BadAttackOption, match="such as '8/255'"):
        ThreatModel(norm, 8)
    assert ThreatModel(norm, 1).epsilon == 1
    assert ThreatModel("2", 8).epsilon == 8


@given(
    seed=st.integers(0, 10_000),
    norm=st.sampled_from(["inf", "2", "rmse"]),
    epsilon=st.floats(1e-3, 0.3),
    dtype=st.sampled_from([torch.float16, torch.bfloat16]),
)
@settings(max_examples=60, deadline=None)
def test_half_precision_stays_in_ball_and_box(seed, norm, epsilon, dtype):
    """Every pixel is the nearest one of its precision, or the next towards the clean image."""
    images, clean = (pair.clamp(0, 1) for pair in _pair(seed))
    coarse = clean.to(dtype)
    threat = ThreatModel(norm, epsilon)
    out = threat.project(images.to(dtype), coarse)
    exact = threat.project(images.to(dtype).double(), coarse.double())
    assert out.dtype == dtype
    assert (threat.size(measure(out, coarse)) <= epsilon * (1 + 1e-12)).all()
    assert ((out >= 0) & (out <= 1)).all()
    assert ((out.double() - coarse.double()).abs() <= (exact - coarse.double()).abs()).all()
    assert (
        (out.double() - exact).abs() <= torch.finfo(dtype).eps * exact.clamp_min(torch.finfo(dtype).tiny)
    ).all()


def test_an_image_that_a_threat_model_has_no_meaning_for_is_refused():
    """Too small for an SSIM floor, between grey levels, or of half precision where either is asked."""
    floor, levels = ThreatModel("inf", 0.1, ssim_floor=0.9), ThreatModel("inf", 0.1, pixels="8bit")
    with pytest.raises(AttackError, match="at least 11 x 11 pixels, not 10 x 30"):
        floor.check_image(torch.zeros(3, 10, 30))
    with pytest.raises(AttackError, match="multiples of 1/255"):
        levels.check_image(torch.full((3, 12, 12), 0.5))
    for threat in (floor, levels):
        threat.check_image(torch.zeros(3, 12, 12))
        with pytest.raises(AttackError, match=r"float32 or float64, not torch\.float16"):
            threat.check_image(torch.zeros(3, 12, 12, dtype=torch.float16))
    ThreatModel("inf", 0.1).check_image(torch.zeros(3, 2, 2, dtype=torch.float16))
