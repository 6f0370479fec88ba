"""What all tests share."""

import gc
import os

import pytest


def pytest_configure(config):
    """Look for no garbage while thousands of tests and their libraries are read: all of it stays."""
    gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """Begin to look for it, and never among what has been read: a full look took a third of a second."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, and two busy cores lose to their spinning; so do children."""
    import torch  # not above: it is read, too, while nobody looks for garbage

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def no_disk_flush():
    """What tests write need not outlive a power cut; thousands of waits for the disk are minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield
