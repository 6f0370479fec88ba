"""The head against golden values and against an evaluation that shares no code with it (float64)."""

from pathlib import Path

import pytest
import torch

from iqa_models.hyper import HyperHead
from iqa_models.hyper.convert import translate

HIDDEN = {"HYPERIQA": (1024, 512), "SWIN_T": (512, 256), "SWIN_B": (512, 256)}

GOLDEN = {
    ("HYPERIQA", "last"): (0.0701293980, 0.0700234810),
    ("SWIN_T", "last"): (0.0578403809, 0.0594774931),
    ("SWIN_T", "attention"): (0.0607294499, 0.0606499816),
    ("SWIN_B", "attention"): (0.0596632321, 0.0595840914),
}

VARIANTS = [
    ("HYPERIQA", "afa", {}),
    ("HYPERIQA", "attention", {}),
    ("SWIN_T", "afa", {}),
    ("SWIN_B", "last", {}),
    ("SWIN_B", "afa", {}),
    ("SWIN_T", "afa", {"afa": "project512"}),
    ("SWIN_T", "attention", {"afa": "project512"}),
    ("SWIN_T", "attention", {"attention_activation": "sigmoid"}),
    ("SWIN_B", "attention", {"attention_activation": "sigmoid", "attention_hidden": 128}),
]


def golden_state(reference, trunk, fusion, options):
    """Tensors of a head by the golden formula, under the authors' names."""
    shapes = reference.author_shapes(
        getattr(reference, trunk),
        HIDDEN[trunk],
        fusion,
        attention_hidden=options.get("attention_hidden", 256),
        project=options.get("afa") == "project512",
    )
    return {name: reference.golden_tensor(shape) for name, shape in shapes.items()}


def head_of(reference, trunk, fusion, state, options):
    """Our head in float64 with these tensors; every one of its parameters comes from them."""
    projections = {name: state[name] for name in state if name.startswith("project")}
    authors = {
        f"swin.{name}" if name.startswith("lda") else name: tensor
        for name, tensor in state.items()
        if name not in projections
    }
    ours, unknown = translate("SMART-IQA author", authors)
    assert unknown == []
    ours = {name.removeprefix("head."): tensor for name, tensor in ours.items()}
    for name, tensor in projections.items():
        number, kind = name.removeprefix("project").split(".")
        ours[f"fusion.project.{int(number) - 1}.{kind}"] = tensor
    head = HyperHead(getattr(reference, trunk), HIDDEN[trunk], fusion=fusion, **options).double().eval()
    head.load_state_dict(ours, strict=True)
    return head


@pytest.mark.parametrize(("trunk", "fusion"), GOLDEN)
def test_scores_are_the_golden_ones(reference, trunk, fusion):
    """Two images score the ten given decimals, here and in the independent evaluation."""
    state = golden_state(reference, trunk, fusion, {})
    maps = reference.golden_maps(getattr(reference, trunk))
    wanted = torch.tensor(GOLDEN[trunk, fusion], dtype=torch.float64)
    independent = reference.evaluate(state, maps, fusion)["score"]
    torch.testing.assert_close(independent, wanted, rtol=0, atol=1e-10)
    with torch.no_grad():
        ours = head_of(reference, trunk, fusion, state, {})(maps)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(ours, independent, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("trunk", "fusion", "options"), VARIANTS)
def test_the_other_variants_score_as_evaluated_independently(reference, trunk, fusion, options):
    """Every other row, and each option of the paper's text, agrees with grouped convolutions."""
    state = golden_state(reference, trunk, fusion, options)
    maps = reference.golden_maps(getattr(reference, trunk))
    wanted = reference.evaluate(state, maps, fusion, options.get("attention_activation", "softmax"))
    with torch.no_grad():
        found = head_of(reference, trunk, fusion, state, options).trace(maps)
    torch.testing.assert_close(found.score, wanted["score"], rtol=0, atol=1e-12)
    if fusion == "attention":
        torch.testing.assert_close(found.fused.attention, wanted["attention"], rtol=0, atol=1e-12)
    else:
        assert found.fused.attention is None
    torch.testing.assert_close(found.made.hyper, wanted["hyper"], rtol=0, atol=1e-12)


def test_intermediate_values_are_the_golden_ones(reference):
    """LDA vector and generated weights of HyperIQA, and the attention of SMART-IQA tiny, as given."""
    state = golden_state(reference, "HYPERIQA", "last", {})
    with torch.no_grad():
        trace = head_of(reference, "HYPERIQA", "last", state, {}).trace(
            reference.golden_maps(reference.HYPERIQA)
        )
    lda = trace.lda[0]
    found = torch.stack([lda[0], lda[1], lda[2], lda[48], lda[49], lda[50], lda.sum()])
    wanted = [0.05011776, 0.03118681, -0.01133520, 0.06711527, 0.04633329, -0.03151399, 0.28452039]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-8)
    w, b = trace.made.weights, trace.made.biases
    made = torch.stack([w[0][0, 0, 0], w[0][0, -1, -1], b[0][0, 0], w[3][0, 0, 0], w[4][0, 0, 0], b[4][0, 0]])
    wanted = [0.07742192, -0.01966585, 0.05765021, 0.07742192, 0.05765021, 0.05765021]
    torch.testing.assert_close(made, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-8)

    state = golden_state(reference, "SWIN_T", "attention", {})
    with torch.no_grad():
        trace = head_of(reference, "SWIN_T", "attention", state, {}).trace(
            reference.golden_maps(reference.SWIN_T)
        )
    wanted = [0.26128685, 0.25627084, 0.24543063, 0.23701167]
    torch.testing.assert_close(
        trace.fused.attention[0], torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-8
    )


def test_the_reference_shares_no_code_with_the_head():
    """The independent evaluation imports nothing of ours."""
    assert "iqa_models" not in Path(__file__).with_name("conftest.py").read_text()
