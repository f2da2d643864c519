"""Shared by the tests of models: one member of each torchvision family, built once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.models.families import FAMILIES, Family, make


# For the session, so that pytest runs all tests of one family, then lets its model go and makes the next.
@pytest.fixture(scope="session", params=FAMILIES, ids=lambda family: family[0])
def family(request: pytest.FixtureRequest) -> Family:
    return make(*request.param)


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in the same order every time; and with so little work a second thread mostly waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
