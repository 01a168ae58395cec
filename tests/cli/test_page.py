"""The page of a run: whole, safe and alone; in a browser neither wider than the window nor asking for anything."""

from __future__ import annotations

import html.parser
import json
import shutil

import numpy as np
import pytest

from jaxcvx import plots
from jaxcvx.cli.page import number, page

pytest.importorskip("jinja2")

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8ffbf1e0005fe02fe"
    "a7356cb70000000049454e44ae426082"
)
LONG = "a column with a very long name that has_no_blank_" + "x" * 60
REPORT = {
    "data": {
        "name": "<script>alert(1)</script>",
        "task": "classification",
        "target": "kind & more",
        "train_rows": 1234,
        "test_rows": 10,
        "features": 3,
        "columns": ["a", "<b>", LONG],
        "outputs": 3,
        "classes": ["p", "q", "r"],
        "classes_without_test_rows": ["r"],
        "preparation": ["column '<b>': 3 missing cells became the median.", f"column '{LONG}' is dropped."],
    },
    "loss": "softmax",
    "beta": 0.5,
    "beta_max": 50.0,
    "beta_fraction": 0.01,
    "betas": [50.0, 0.5],
    "cv_scores": [[0.3, 0.9], [0.3, 0.8]],
    "cv_mean": [0.3, 0.85],
    "cv_standard_error": [0.0, 0.05],
    "scoring": "accuracy",
    "folds": 2,
    "rule": "best",
    "chosen": 1,
    "score": {"mean": 0.85, "standard_error": None},
    "num_neurons": 7,
    "train": {"accuracy": 0.95},
    "test": {"accuracy": 0.8766},
    "status": "MAX_STEPS",
    "upper_bound": 12.5,
    "lower_bound": None,
    "gap": None,
    "scope": "none",
    "certificate": {"upper": 12.5, "lower": None, "gap": None, "nodes": 9876, "sentence": "This network is <fine>."},
    "proof": [],
    "neurons": [{"strength": 0.75, "direction": [["<b>", 0.8], [LONG, -0.6]], "output": [1.0, -2.0, 0.5]}],
    "seconds": {"reading": 0.1, "training 20 betas": 3.0, "compiling": 2.0, "total": 4.0},
    "programs": 12,
    "comparison": [
        {"method": "Adam", "objective": 12.6, "neurons": 100, "score": None, "standard_error": None, "seconds": 1.0}
    ],
    "seed": 0,
    "versions": {"jaxcvx": "1", "jax": "2"},
}


class Reader(html.parser.HTMLParser):
    """Checks that tags are balanced, and keeps the texts and what would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.texts: list[str] = []
        self.alts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        values = dict(attrs)
        self.fetched += [values[name] or "" for name in ("src", "href") if name in values]
        if tag == "img":
            self.alts.append(values.get("alt") or "")
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_whole_and_alone():
    made = page(REPORT, dict.fromkeys(("path", "proof", "effects", "regions"), PNG))
    reader = Reader(made)
    assert reader.fetched[0] == "data:,"  # no browser asks for an icon
    assert len(reader.fetched) == 5 and all(each.startswith("data:image/png;base64,") for each in reader.fetched[1:])
    assert all(len(alt) > 20 for alt in reader.alts)
    text = " ".join(" ".join(reader.texts).split())
    sections = (
        "training objective",
        "This network is",
        "The path of weight decays From",
        "The proof The upper",
        "What the network learned Each",
        "Decision regions The",
        "The strongest neurons A",
        "What was done to the columns",
        "Other methods",
        "The run",
        "version of jax",
        "jaxcvx predict",
    )
    places = [text.index(words) for words in sections]
    assert places == sorted(places)
    for words in ("<script>alert(1)</script>: a classifier with 7 neurons", "kind & more", "1,234 rows", "0.8766",
                  "This network is <fine>.", "0.85 ± –", "+0.80 <b>", "class r", "9,876", "Adam", "75 %"):  # fmt: skip
        assert words in text, words
    assert "http" not in made and "None" not in made and "@import" not in made and "url(" not in made


def test_parts_that_a_run_lacks_are_left_out():
    small = json.loads(json.dumps(REPORT))
    small |= {"test": None, "comparison": [], "neurons": [], "beta_fraction": None}
    small["data"] |= {"task": "regression", "classes": None, "classes_without_test_rows": [], "preparation": []}
    text = " ".join(Reader(page(small, {})).texts)
    for words in ("Other methods", "strongest neurons", "What was done", "test rows", "classes"):
        assert words not in text, words


def test_what_is_unknown_is_a_dash():
    nothing = json.loads(json.dumps(REPORT), parse_float=lambda text: None)
    nothing["seconds"] = dict.fromkeys(REPORT["seconds"], 0.0)
    nothing |= {"programs": None, "seed": None, "num_neurons": None}
    nothing["comparison"][0]["neurons"] = nothing["certificate"]["nodes"] = None
    made = page(nothing, {})
    text = " ".join(" ".join(Reader(made).texts).split())
    assert "None" not in made and "nan" not in text
    for words in ("a classifier with – neurons", "± – standard error", "weight decay beta –", "seed –", "– a", "– ± –"):
        assert words.replace("– a", "– <b>") in text, words


def test_numbers():
    assert [number(None), number(12345), number(0.123456), number(3.0, 2)] == ["–", "12,345", "0.1235", "3"]


def pictures(folder):
    """Two pictures as training draws them."""
    X = np.random.default_rng(0).standard_normal((40, 6))
    plots.proof([(1.0, 12.5, 2.0), (2.0, 12.5, 12.0)], folder / "proof.png")
    plots.effects(lambda rows: rows @ np.arange(6.0), X, list("abcdef"), folder / "effects.png")
    return {name: (folder / f"{name}.png").read_bytes() for name in ("proof", "effects")}


@pytest.mark.soak
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_it(width, scheme, tmp_path):
    """Nothing is wider than the window, pictures stay legible on white, the console is silent, nothing is fetched."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'jaxcvx[browser]'")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium: apt-get install chromium")
    file = tmp_path / "report.html"
    file.write_text(page(REPORT, pictures(tmp_path)))
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        view = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        said, asked = [], []
        view.on("console", lambda message: said.append(message.text))
        view.on("pageerror", lambda error: said.append(str(error)))
        view.on("request", lambda request: asked.append(request.url))
        view.goto(file.as_uri())
        found = view.evaluate(
            """() => ({
                inner: innerWidth,
                scroll: document.documentElement.scrollWidth,
                images: [...document.images].map(i => [i.naturalWidth, i.getBoundingClientRect().width]),
                scripts: document.scripts.length,
                page: getComputedStyle(document.body).backgroundColor,
                card: getComputedStyle(document.querySelector("figure")).backgroundColor,
            })"""
        )
        chromium.close()
    assert said == [] and found["scripts"] == 0
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert found["inner"] == width and found["scroll"] <= width
    assert [natural for natural, _ in found["images"]] == [1200, 1665]
    assert all(0.44 < shown / natural < 0.65 for natural, shown in found["images"])
    assert (found["page"] == "rgb(255, 255, 255)") == (scheme == "light")
    assert found["card"] == "rgb(255, 255, 255)"
