"""Precision of the tests (float64, except where a test asks for jax's default), and reproducible hypothesis."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest
from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None)  # pytest --hypothesis-profile=explore
settings.load_profile("reproducible")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "float32: run with jax's default precision instead of float64")


@pytest.fixture(autouse=True)
def precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """Float64 inside every test. Fixtures of wider scope run outside of it: enter the context there as well."""
    with jax.enable_x64(request.node.get_closest_marker("float32") is None):
        yield


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_are_dropped() -> Iterator[None]:
    """Every compiled program holds memory maps, of which a process may have 65530: a whole run would need more."""
    yield
    jax.clear_caches()
