"""What all tests share."""

import os

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, and two busy cores lose to their spinning."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_disk_flush():
    """What tests write need not outlive a power cut; thousands of waits for the disk are minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield
