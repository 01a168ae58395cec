"""The tests of this folder solve the same problems: they share compiled programs."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def compiled_programs_are_dropped() -> Iterator[None]:
    """Drop them after the folder, and not after each module as elsewhere."""
    yield
    jax.clear_caches()
