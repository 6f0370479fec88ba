"""What the tests of models share."""

from functools import cache

import pytest
import torch

from iqa_models import create_model


@pytest.fixture(scope="session")
def skeleton():
    """Models without storage by name and options, each built once for all tests that read it."""

    @cache
    def build(name, **options):
        with torch.device("meta"):
            return create_model(name, **options)

    return build
