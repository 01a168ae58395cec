"""Precision of the tests (float64, except where a test asks for jax's default), and reproducible hypothesis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import pytest
from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None)  # pytest --hypothesis-profile=explore
settings.load_profile("reproducible")


# Folders with long files. They come first, so that no worker is left alone with one at the end.
LONG_FILES = ("notebooks", "docs", "parallel", "sharding", "reliability", "transforms_of_solve", "integrations")


@pytest.hookimpl(tryfirst=True)  # before -m is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as ``long`` the cases that ``routine`` leaves out and those that ``rare`` names; ``LONG_FILES`` first."""
    seen: dict[str, int] = {}
    for item in items:
        test = item.nodeid.split("[")[0]
        seen[test] = seen.get(test, 0) + 1
        case = item.nodeid.removeprefix(test)[1:-1]
        rare, routine = item.get_closest_marker("rare"), item.get_closest_marker("routine")
        if rare is not None and case in rare.args:
            item.add_marker(pytest.mark.long)
        if routine is None:
            continue
        count = routine.args[0] if isinstance(routine.args[0], int) else None
        if (seen[test] > count) if count is not None else (case not in routine.args):
            item.add_marker(pytest.mark.long)
    items.sort(key=lambda item: item.path.parent.name not in LONG_FILES)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "routine(n) or routine(ids): the first n cases, or these, run by default; the others with -m long"
    )
    config.addinivalue_line("markers", "rare(ids): these cases run with -m long only")
    config.addinivalue_line("markers", "float32: run with jax's default precision instead of float64")


@pytest.fixture(autouse=True)
def precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """Float64 inside every test. Fixtures of wider scope run outside of it: enter the context there as well.

    On accelerators products have full precision, which the public functions see to and the inner ones rely on.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(request.node.get_closest_marker("float32") is None))
        if jax.default_backend() != "cpu":
            stack.enter_context(jax.default_matmul_precision("highest"))
        yield


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_are_dropped() -> Iterator[None]:
    """Every compiled program holds memory maps, of which a process may have 65530: a whole run would need more."""
    yield
    jax.clear_caches()
