"""A verb computes with the threads it is told, and its caller's own number is back behind it."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

import iqa_harness as iqa

GREY = np.full((32, 32, 3), 128, np.uint8)
VERBS = {
    "attack": ("smoke", "linear"),
    "certify": ("linear", "smoke"),
    "certify_run": ("none",),
    "demo": (),
    "diagnose": ("linear",),
    "evaluate": ("linear", "smoke"),
    "plan": ("smoke", "linear"),
    "power": ("none",),
    "profile": ("linear",),
    "score": ("linear", GREY),
}


@pytest.fixture
def asked(monkeypatch):
    """The numbers of threads that were set, in order; there were two before."""
    torch.set_num_threads(2)
    numbers = []
    own = torch.set_num_threads

    def spied(count):
        numbers.append(count)
        own(count)

    monkeypatch.setattr(torch, "set_num_threads", spied)
    yield numbers
    own(1)


def test_every_verb_that_takes_threads_is_here():
    """`verify` sets those of the run, which its own test holds; `attack` and `plan` have them in options."""
    taking = {
        name
        for name in iqa.__all__
        if inspect.isfunction(verb := getattr(iqa, name)) and "threads" in inspect.signature(verb).parameters
    }
    assert taking - {"verify"} == VERBS.keys() - {"attack", "plan"}


@pytest.mark.parametrize("name", VERBS)
def test_the_callers_threads_come_back(asked, name, tmp_path, monkeypatch):
    """Also where the verb ends in an error, as with a device that is not there."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(iqa.HarnessError, match="device 'nowhere' cannot be used"):
        getattr(iqa, name)(*VERBS[name], threads=1, device="nowhere")
    assert (asked[0], asked[-1], torch.get_num_threads()) == (1, 2, 2)


def test_what_is_planned_runs_with_the_planned_threads(asked, tmp_path, cache):
    """Between plan and run the caller has its own number; the manifest says what computed."""
    planned = iqa.plan(
        "smoke", "linear", threads=1, limit=4, store=tmp_path, cache=cache, only=("pgd",), progress=False
    )
    assert torch.get_num_threads() == 2
    run = planned.run(progress=False)
    assert torch.get_num_threads() == 2
    assert {worker.threads for worker in run.manifest.workers} == {1}
