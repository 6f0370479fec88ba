"""Compares the strength of attacks, ours and three libraries', at equal numbers of gradients.

Run by hand: ``python tests/benchmarks/bench_attack_strength.py MODEL... [--images N] [--gradients 10 40]
[--norm 2] [--tune fast]``, MODEL as the command line takes it (a registered name or the folder of a
checkpoint). ART comes with ``pip install iqa-harness[bench]``; a library that is not there is left out. With
``--tune`` our attacks take their gradients as a run of that option would; scores are the model's own.

Every attack raises and lowers the score from one seeded random start with that many gradients an image
and direction. The libraries have their own loops, with the score as their loss: torchattacks through our two
logits (its APGD by `attack_single_run`, since a call returns label flips only), foolbox by `get_loss_fn`,
ART by a regressor with a loss of its own, which starts at the image: it has no random start for regressors.
PGD steps are 2.5 eps / gradients in all of them; falling ones begin at eps. In norm 2 the radius is given as
RMSE a pixel: eps = RMSE sqrt(3 H W). Every image is projected and scored by us. Prints the mean displacement
of the score in units of its range, the SROCC of the composed worst case over clean image and both ends, and
CPU seconds an image. Then the gradients that five objectives cost together, and the papers' three of them.
"""

# ruff: noqa: T201 - a script that prints its tables

from __future__ import annotations

import argparse
import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iqa_attacks import ThreatModel, create_attack, parse_epsilon, score
from iqa_attacks.adapters.torchattacks import TwoLogits
from iqa_harness.cells.compute import to_tensor
from iqa_harness.data import open_data
from iqa_harness.entrants.naming import load_entrant, parse_model
from iqa_harness.machine.runtime import TUNE
from iqa_harness.machine.tuning import tune
from iqa_harness.measures.composed import composed_worst_case
from iqa_harness.measures.correlation import srocc
from iqa_models import QualityModel, weights_sha256

BOTH = ("raise", "lower")
FIVE = ("mse", "drift", "pairwise_inversion", "raise", "lower")

Push = Callable[[QualityModel, Tensor, ThreatModel, int, bool], Tensor]
"""Pushes images (B, 3, H, W) up (True) or down with a number of gradients an image."""


def ours(kind: str, copy: QualityModel | None, **settings: Any) -> Push:
    """Return an attack of this package, by the gradients of a copy if there is one."""

    def push(model: QualityModel, images: Tensor, threat: ThreatModel, gradients: int, up: bool) -> Tensor:
        own: dict[str, Any] = {"steps": gradients, "step_size": 2.5 * threat.epsilon / gradients, **settings}
        if own.get("falling"):
            own["step_size"] = threat.epsilon
        if kind == "apgd":
            own = {"steps": gradients}
        elif kind == "noise":
            own = {"samples": gradients}
        objective = BOTH[0] if up else BOTH[1]
        attack = create_attack(kind, threat=threat, objectives=(objective,), **own)
        ids = [f"image-{i}" for i in range(len(images))]
        labels = torch.full((len(images),), 0.5)
        result = attack.run(model, list(images), ids, labels, gradients=copy)
        best = {f.image: f.example.pixels for f in result.found if f.objective == objective}
        return torch.stack([best[i] for i in range(len(images))])

    return push


def torchattacks_pgd(
    model: QualityModel, images: Tensor, threat: ThreatModel, gradients: int, up: bool
) -> Tensor:
    """Push by torchattacks.PGD: the last iterate."""
    import torchattacks

    kind = torchattacks.PGD if threat.norm == "inf" else torchattacks.PGDL2
    attack = kind(
        TwoLogits(model, up=up), eps=threat.epsilon, alpha=2.5 * threat.epsilon / gradients, steps=gradients
    )
    pushed: Tensor = attack(images, torch.full((len(images),), 0 if up else 1))
    return pushed


def torchattacks_apgd(
    model: QualityModel, images: Tensor, threat: ThreatModel, gradients: int, up: bool
) -> Tensor:
    """Push by torchattacks.APGD: the iterate of the highest loss; it spends one gradient on the start."""
    import torchattacks

    norm = "Linf" if threat.norm == "inf" else "L2"
    attack = torchattacks.APGD(TwoLogits(model, up=up), norm=norm, eps=threat.epsilon, steps=gradients - 1)
    best: Tensor = attack.attack_single_run(images, torch.full((len(images),), 0 if up else 1))[0]
    return best.detach()


def foolbox_pgd(model: QualityModel, images: Tensor, threat: ThreatModel, gradients: int, up: bool) -> Tensor:
    """Push by foolbox's LinfPGD or L2PGD with the score as its loss."""
    import eagerpy
    import foolbox

    kind = foolbox.attacks.LinfPGD if threat.norm == "inf" else foolbox.attacks.L2PGD

    class OnScore(kind):  # type: ignore[misc, valid-type]
        def get_loss_fn(self, model: Any, labels: Any) -> Any:
            return lambda inputs: model(inputs)[:, 1 if up else 0].sum()

    wrapped = foolbox.PyTorchModel(TwoLogits(model, up=True), bounds=(0, 1), device="cpu")
    attack = OnScore(abs_stepsize=2.5 * threat.epsilon / gradients, steps=gradients, random_start=True)
    criterion = foolbox.criteria.Misclassification(torch.zeros(len(images), dtype=torch.long))
    pushed: Tensor = attack.run(wrapped, eagerpy.astensor(images), criterion, epsilon=threat.epsilon).raw
    return pushed


def art_pgd(model: QualityModel, images: Tensor, threat: ThreatModel, gradients: int, up: bool) -> Tensor:
    """Push by ART's projected gradient descent on a regressor whose loss is the score."""
    from art.attacks.evasion import ProjectedGradientDescentNumpy
    from art.estimators.regression.pytorch import PyTorchRegressor

    class Column(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: Tensor) -> Tensor:
            return self.model(inputs).unsqueeze(1)

    def loss(predicted: Tensor, _: Tensor) -> Tensor:
        return predicted.sum() if up else -predicted.sum()

    regressor = PyTorchRegressor(
        Column().eval(),
        loss=loss,
        input_shape=tuple(images.shape[1:]),
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    norm = np.inf if threat.norm == "inf" else 2
    attack = ProjectedGradientDescentNumpy(
        regressor, norm=norm, eps=threat.epsilon, eps_step=2.5 * threat.epsilon / gradients,
        max_iter=gradients, num_random_init=0, batch_size=len(images), verbose=False,
    )  # fmt: skip
    labels = np.zeros((len(images), 1), dtype=np.float32)
    return torch.from_numpy(attack.generate(images.numpy(), labels)).float()


def contenders(copy: QualityModel | None = None) -> dict[str, Push]:
    """Return all attacks by name; ours ask the copy for gradients, the libraries the model."""
    return {
        "noise": ours("noise", copy),
        "torchattacks PGD": torchattacks_pgd,
        "torchattacks APGD": torchattacks_apgd,
        "foolbox PGD": foolbox_pgd,
        "ART PGD": art_pgd,
        "pgd": ours("pgd", copy),
        "pgd, falling steps": ours("pgd", copy, falling=True),
        "mifgsm": ours("mifgsm", copy),
        "apgd": ours("apgd", copy),
    }


def tuned(model: QualityModel, images: Tensor, mode: str) -> QualityModel | None:
    """Return the copy that a long run on these images would choose, and say which; None for the model."""
    choice = tune(model, weights_sha256(model), list(images), chunk=8, mode=mode, gradients=1e9)
    print(f"gradients: {choice.why}")
    copy = choice.copy_of(model)
    return None if copy is model else copy


def compare(
    model: QualityModel,
    images: Tensor,
    mos: np.ndarray[Any, Any],
    threat: ThreatModel,
    gradients: int,
    attacks: dict[str, Push],
) -> None:
    """Print one row an attack."""
    scale = model.spec.score_range[1] - model.spec.score_range[0]
    clean = score(model, images, chunk=4).numpy()
    for name, push in attacks.items():
        started = time.process_time()
        torch.manual_seed(0)
        np.random.seed(0)
        try:
            pushed = [
                threat.project(push(model, images, threat, gradients, up), images) for up in (True, False)
            ]
        except ImportError as error:
            print(f"{gradients:>9}  {name:18}  not there: {error}")
            continue
        seconds = (time.process_time() - started) / len(images)
        high, low = (score(model, moved, chunk=4).numpy() for moved in pushed)
        moved = np.concatenate([high - clean, clean - low]) / scale
        candidates = [np.unique(row) for row in np.stack([clean, low, high], axis=1)]
        value = composed_worst_case(candidates, mos, "srocc").value.value
        shown = "undefined" if value is None else f"{value:.3f}"
        print(f"{gradients:>9}  {name:18}  {moved.mean():>12.4f}  {shown:>14}  {seconds:>6.1f}", flush=True)


class Noting(QualityModel):
    """A model that notes of every image it is differentiated at whether it was so before."""

    def __init__(self, model: QualityModel) -> None:
        super().__init__(model.spec)
        self.model = model
        self.met: set[bytes] = set()
        self.again = 0
        self.eval()

    def predict(self, images: Tensor) -> Tensor:
        """Return the model's scores."""
        if images.requires_grad:
            for image in images.detach():
                digest = hashlib.blake2b(image.numpy().tobytes()).digest()
                self.again += digest in self.met
                self.met.add(digest)
        return self.model.predict(images)


def shared_cost(
    model: QualityModel, images: Tensor, ids: list[str], mos: np.ndarray[Any, Any], threat: ThreatModel
) -> None:
    """Print the gradients an image and step of objectives together, and the loss of pairs."""
    for objectives in (FIVE, FIVE[:3]):
        for name, settings in (
            ("pgd", {"steps": 10, "step_size": threat.epsilon / 4}),
            ("apgd", {"steps": 20}),
        ):
            attack = create_attack(name, threat=threat, objectives=objectives, **settings)
            noting = Noting(model)
            result = attack.run(noting, list(images), ids, torch.from_numpy(mos))
            steps = attack.effort.steps
            spent = [result.cost[i, steps].backwards / steps for i in range(len(ids))]
            pairs = np.mean([f.loss for f in result.found if f.objective == "pairwise_inversion"])
            print(
                f"gradients an image and step for {len(objectives)} objectives, {name}: {np.mean(spent):.2f} "
                f"(apart: {len(objectives)}), {noting.again} of them at an image met before; "
                f"loss of pairwise_inversion {pairs:.3f}",
                flush=True,
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--epsilon", default="1/255", help="radius; with --norm 2 as RMSE a pixel")
    parser.add_argument("--norm", choices=["inf", "2"], default="inf")
    parser.add_argument("--gradients", type=int, nargs="+", default=[10, 40, 100])
    parser.add_argument("--attacks", nargs="+", choices=list(contenders()), default=list(contenders()))
    parser.add_argument("--tune", choices=TUNE, default="off", help="how our gradients are chosen")
    parser.add_argument("--no-cost", action="store_true", help="leave the cost of five objectives out")
    arguments = parser.parse_args()
    data = open_data("demo").split("test").subset(range(arguments.images))
    images = torch.stack([to_tensor(data.read(i), "cpu") for i in range(len(data))])
    radius = parse_epsilon(arguments.epsilon)
    if arguments.norm == "2":
        radius *= math.sqrt(images[0].numel())
    threat = ThreatModel(arguments.norm, radius)
    ids = [record.image_id for record in data.records]
    low, high = data.card.mos_range
    mos = np.array([(record.mos - low) / (high - low) for record in data.records])
    for text in arguments.models:
        model = load_entrant(parse_model(text), None).model.eval()
        clean = srocc(score(model, images, chunk=4).numpy(), mos).value
        where = f"norm {arguments.norm}, eps {arguments.epsilon}"
        print(f"\n{model.spec.name}, {len(ids)} images, clean SROCC {clean:.3f}, {where}")
        print(f"{'gradients':>9}  {'attack':18}  {'displacement':>12}  {'composed SROCC':>14}  {'CPU s':>6}")
        push = contenders(tuned(model, images, arguments.tune))
        for gradients in arguments.gradients:
            compare(model, images, mos, threat, gradients, {name: push[name] for name in arguments.attacks})
        if not arguments.no_cost:
            shared_cost(model, images, ids, mos, threat)


if __name__ == "__main__":
    main()
