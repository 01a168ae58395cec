"""Every Python block of the documentation runs; every page is in the navigation, every public name in the API pages."""

from __future__ import annotations

import pathlib
import re

import jax
import pytest

import jaxcvx
import jaxcvx.plots

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: pathlib.Path) -> list[tuple[int, str]]:
    """Line numbers and sources."""
    text = page.read_text()
    return [(text[: found.start()].count("\n") + 2, found[1]) for found in BLOCK.finditer(text)]


@pytest.mark.examples
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = jax.config.jax_enable_x64
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        for line, source in blocks(page):
            exec(compile("\n" * (line - 1) + source, str(page), "exec"), names)
    finally:
        jax.config.update("jax_enable_x64", before)


def test_there_are_blocks():
    assert sum(len(blocks(page)) for page in PAGES) >= 30


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]}


def test_every_public_name_is_in_the_api_pages_once():
    found: list[str] = []
    for page in (ROOT / "docs" / "api").glob("*.md"):
        found += re.findall(r"^::: jaxcvx\.(\S+)$", page.read_text(), re.MULTILINE)
    integrations = {f"estimators.{name}" for name in jaxcvx.estimators.__all__}
    integrations |= {f"flax.{name}" for name in jaxcvx.flax.__all__}
    integrations |= {f"torch.{name}" for name in jaxcvx.torch.__all__}
    integrations |= {f"parallel.{name}" for name in jaxcvx.parallel.__all__}
    integrations |= {f"plots.{name}" for name in jaxcvx.plots.__all__}
    assert sorted(found) == sorted(set(jaxcvx.__all__) | integrations)


def test_links_and_pictures_exist():
    for page in PAGES[1:]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
