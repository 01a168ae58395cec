"""Puts the records and pictures of the experiments into the site, where the reproduction table's links find them."""

from __future__ import annotations

import pathlib

from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[1]


def on_files(files: Files, config) -> Files:
    for path in sorted((ROOT / "experiments" / "results").iterdir()):
        if path.suffix in (".json", ".png"):
            files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    return (
        markdown.replace("../experiments/results/", "results/") if page.file.src_uri == "reproduction.md" else markdown
    )
