"""What the tests of attacks share: small models, images, exact comparison, and one table of all attacks."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from iqa_attacks import Attack, AttackResult, ThreatModel, TrainedUniversal, Universal, create_attack
from iqa_models import ModelSpec, QualityModel, create_model

ALL = ("mse", "drift", "pairwise_inversion", "raise", "lower")
PER_IMAGE = ("mse", "drift", "raise", "lower")
BOTH = ("raise", "lower")
GOALS = ("raise", "lower", "drift", "pairwise_inversion")
SIZES = [(8, 8)] * 11
EPSILON = {"inf": 0.05, "2": 0.5, "rmse": 0.03}


class Wavy(QualityModel):
    """A smooth non-linear model in float64, bit-equal for every batch size: sums go over one image each."""

    def __init__(self, **card: object) -> None:
        linear = create_model("linear", dtype="float64")
        super().__init__(
            ModelSpec(**{**linear.spec.model_dump(), "name": "wavy", "score_range": (0, 1), **card})
        )
        self.linear = linear

    def predict(self, images: Tensor) -> Tensor:
        waves = torch.sin(9 * images).mul(images.roll(1, -1)).flatten(1).mean(dim=1)
        return 0.3 * self.linear(images) + waves


class Counting(Wavy):
    """Counts the images it is shown and the gradients taken, keeps its scores; noisy if it is stochastic."""

    def __init__(self, **card: object) -> None:
        super().__init__(**card)
        self.forwards = self.backwards = 0
        self.seen: list[float] = []

    def predict(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        if images.requires_grad:
            images.register_hook(self._count)
        if self.spec.is_stochastic:
            images = (images + 0.01 * torch.randn(images.shape[1:], dtype=images.dtype)).clamp(0, 1)
        scores = super().predict(images)
        self.seen += scores.detach().tolist()
        return scores

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def targets(sizes=SIZES, seed=0, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    images = [low + (high - low) * torch.rand(3, *s, generator=generator, dtype=torch.float64) for s in sizes]
    return (
        images,
        [f"image-{i}" for i in range(len(sizes))],
        torch.rand(len(sizes), generator=generator).double(),
    )


def by_key(result):
    return {(f.image, f.objective, f.steps): f for f in result.found}


def same(a, b):
    """Whether two found entries are the same, bit for bit."""
    return (
        a.loss == b.loss
        and a.example.score == b.example.score
        and (a.example.restart, a.example.step) == (b.example.restart, b.example.step)
        and torch.equal(a.example.pixels, b.example.pixels)
    )


@dataclass(frozen=True)
class Case:
    """An attack of the catalogue with settings that a test can afford."""

    kind: str
    objectives: tuple[str, ...]
    settings: dict[str, object] = field(default_factory=dict)
    """Of a step size the share of the radius."""
    norms: tuple[str, ...] = ("inf", "2", "rmse")
    threat: dict[str, object] = field(default_factory=dict)
    best_kept: bool = True
    """Whether the best point met is kept; otherwise the last one."""
    eot: bool = True
    """Whether it can attack a stochastic model."""

    def attack(self, norm: str = "inf", **changes: object) -> Attack:
        """Return the attack in a norm."""
        settings = {"objectives": self.objectives, "seed": 7, **self.settings, **changes}
        if isinstance(settings.get("step_size"), float):
            settings["step_size"] *= EPSILON[norm]
        return create_attack(self.kind, threat=ThreatModel(norm, EPSILON[norm], **self.threat), **settings)


CASES = {
    "fgsm": Case("fgsm", ALL, best_kept=False),
    "pgd": Case("pgd", ALL, {"steps": 4, "step_size": 1 / 3, "restarts": 2, "report_steps": (1, 3)}),
    "pgd, last": Case("pgd", ALL, {"steps": 4, "step_size": 1 / 3, "keep": "last", "report_steps": (1, 3)},
                      best_kept=False),
    "pgd, falling": Case("pgd", ALL, {"steps": 4, "step_size": 1.0, "falling": True}),
    "pgd through jpeg": Case("pgd", ALL, {"steps": 3, "step_size": 1 / 3, "jpeg_qualities": (50, 75),
                                          "report_steps": (1,)}, best_kept=False),
    "pgd on levels": Case("pgd", ALL, {"steps": 4, "step_size": 1 / 3}, threat={"pixels": "8bit"}),
    "mifgsm": Case("mifgsm", ALL, {"steps": 5, "step_size": 1 / 3, "report_steps": (3,)}),
    "apgd": Case("apgd", (*ALL, "soft_spearman"), {"steps": 6, "restarts": 2}),
    "closed loop": Case("closed_loop", ("srocc", "plcc"), {"steps": 3, "restarts": 2}, best_kept=False),
    "noise": Case("noise", ALL, {"samples": 3}),
    "square": Case("square", PER_IMAGE, {"queries": 8, "restarts": 2, "report_steps": (5,)}),
    "spsa": Case("spsa", PER_IMAGE, {"queries": 12, "directions": 2, "report_steps": (6,)}),
    "universal": Case("universal", BOTH, {"steps": 4, "step_size": 0.5}, best_kept=False),
    "minimum_norm": Case("minimum_norm", GOALS, {"steps": 5, "spread": 0.01}, best_kept=False,
                         eot=False),
    "minimum_norm on levels": Case("minimum_norm", GOALS, {"steps": 5, "spread": 0.01}, best_kept=False,
                                   eot=False, threat={"pixels": "8bit"}),
    "torchattacks": Case("torchattacks", BOTH, {"attack": "VMIFGSM", "options": {"steps": 2, "N": 2}},
                         norms=("inf",), best_kept=False, eot=False),
    "torchattacks, norm 2": Case("torchattacks", BOTH, {"attack": "PGDL2", "options": {"steps": 3}},
                                 norms=("2",), best_kept=False, eot=False),
}  # fmt: skip
"""Every attack of the catalogue; a new one gets its row here, and with it the whole contract."""


def run(attack: Attack, model, on, **options) -> AttackResult:
    """Run an attack, one that must be trained after training on four other images."""
    if isinstance(attack, Universal) and not isinstance(attack, TrainedUniversal):
        images, ids, _ = targets([tuple(on[0][0].shape[1:])] * 4, seed=99)
        attack = attack.trained(model, [image.to(on[0][0].dtype) for image in images], ids)
    return attack.run(model, *on, **options)
