"""A run that is killed in the midst of a step goes on to the weights it would have had."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from iqa_harness.data import open_data
from iqa_harness.training.config import changed, load_train_config
from iqa_harness.training.logs import STEP_LOG
from iqa_harness.training.loop import train
from iqa_harness.training.state import STATE
from iqa_models.checkpoint import read_card

pytestmark = pytest.mark.slow

SETTINGS = """
name = "killed"
model = "timm_regressor"
options = { backbone = "test_efficientnet", hidden = 8 }
epochs = 2
patches = 3
batch_size = 4
crop = 32
batch_norm = "live"
ema_decay = 0.9
robust = "pgd"
adversarial_steps = 1
"""


COMMAND = ("train", "settings.toml", "--data", "set.csv", "--out", "out", "--save-every", "1", "--log-steps")


def start(folder):
    """Start the training as a user does."""
    with (folder / "log.txt").open("a") as log:
        command = [sys.executable, "-m", "iqa_harness", *COMMAND]
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def kill_at(folder, process, step):
    """Send SIGKILL once so many steps are logged; the run must not be through by then."""
    rows, began = folder / "out" / STEP_LOG, time.monotonic()
    while not rows.exists() or len(rows.read_text().splitlines()) <= step:
        assert process.poll() is None, (folder / "log.txt").read_text()
        assert time.monotonic() - began < 300, "the run does not move"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_kill_9_at_a_random_step_and_resume_gives_the_same_weights(cli, photographs):
    """Killed without warning and resumed, the checkpoint is that of a run nobody disturbed."""
    workshop = photographs
    (workshop / "settings.toml").write_text(SETTINGS)
    step = int(np.random.default_rng().integers(1, 15))
    kill_at(workshop, start(workshop), step)
    assert (workshop / "out" / STATE).exists()
    code, _, err = cli(*COMMAND, "--resume")
    assert code == 0, err
    config = changed(load_train_config(workshop / "settings.toml"), {"data": "set"}, "here")
    train(config, open_data(workshop / "set.csv"), workshop / "whole")
    killed, whole = (read_card(workshop / name) for name in ("out", "whole"))
    assert killed.training["identity"] == whole.training["identity"]
    assert killed.weights_sha256 == whole.weights_sha256, f"killed after step {step}"
    steps = (workshop / "out" / STEP_LOG).read_text().splitlines()
    assert [line.split(",")[0] for line in steps[1:]] == [str(step) for step in range(1, 19)]
