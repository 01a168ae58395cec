"""The page of a run: whole, safe and alone; in a browser neither wider than the window nor asking for anything."""

from __future__ import annotations

import html.parser
import json
import shutil
import subprocess

import pytest

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
        "preparation": ["column '<b>': 3 missing cells became the median."],
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
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_whole_and_alone():
    made = page(REPORT, dict.fromkeys(("path", "proof", "effects", "regions"), PNG))
    reader = Reader(made)
    assert len(reader.fetched) == 4 and all(each.startswith("data:image/png;base64,") for each in reader.fetched)
    assert all(len(alt) > 20 for alt in reader.alts)
    text = " ".join(" ".join(reader.texts).split())
    for words in ("<script>alert(1)</script>: a classifier with 7 neurons", "kind & more", "1,234 rows", "0.877",
                  "This network is <fine>.", "0.85 ± –", "+0.80 <b>", "class r", "9,876", "Adam", "75 %"):  # fmt: skip
        assert words in text, words
    assert "http" not in made and "None" not in made and "@import" not in made and "url(" not in made


def test_parts_that_a_run_lacks_are_left_out():
    small = json.loads(json.dumps(REPORT))
    small |= {"test": None, "comparison": [], "neurons": [], "beta_fraction": None}
    small["data"] |= {"task": "regression", "classes": None, "classes_without_test_rows": [], "preparation": []}
    text = " ".join(Reader(page(small, {})).texts)
    for words in ("Other methods", "strongest neurons", "What was done", "test rows", "of beta_max", "classes"):
        assert words not in text, words


def test_numbers():
    assert [number(None), number(12345), number(0.123456), number(3.0, 2)] == ["–", "12,345", "0.1235", "3"]


@pytest.mark.soak
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_it_within_the_window(width, tmp_path):
    """Chromium lays it out: nothing is wider than the window. The page can ask for nothing: there is no network."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium: apt-get install chromium")
    made = page(REPORT, dict.fromkeys(("path", "proof", "effects"), PNG))
    script = (
        "<script>addEventListener('load', () => { const root = document.documentElement;"
        "document.title = [innerWidth, root.scrollWidth, document.images.length,"
        "[...document.images].every(i => i.naturalWidth > 0), performance.getEntriesByType('resource')"
        ".filter(e => !e.name.startsWith('data:')).length].join(' '); });</script></body>"
    )
    file = tmp_path / "page.html"  # in a frame of this width: a headless window is at least 500 pixels wide
    file.write_text(made.replace("</body>", script.replace("document.title =", "parent.document.title =")))
    frame = tmp_path / "frame.html"
    frame.write_text(f'<iframe src="page.html" style="width:{width}px;height:3000px;border:0"></iframe>')
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
               "--disable-web-security", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000",
               "--window-size=1500,3200", "--dump-dom", str(frame)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = done.stdout.partition("<title>")[2].partition("</title>")[0].split()
    assert title, done.stderr
    assert int(title[0]) == width and int(title[1]) <= width, title
    assert title[2:] == ["3", "true", "0"]
