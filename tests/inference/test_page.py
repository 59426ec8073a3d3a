"""The page of the service in a real browser: a sentence is typed, its spans are marked."""

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import browser  # noqa: E402
import torch  # noqa: E402
from serving import core_of, serving  # noqa: E402
from test_filter import Echo  # noqa: E402

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium")


class Names(Echo):
    """Marks two names, the second inside the first; 𠮷 is one character, and two of JavaScript."""

    def windows(self, text):
        return [text]

    def merge(self, text, predictions):
        spans = [(2, 7, "place"), (2, 4, "person"), (8, 9, "<b>")]
        return {
            "entities": [
                {"start": start, "end": end, "label": label} for start, end, label in spans
            ],
            "candidates": [{"start": 0, "end": 1, "label": "never shown"}],
        }


def test_a_typed_sentence_is_shown_with_its_spans(tmp_path):
    cores = {name: core_of(Names([]), torch.nn.Linear(1, 1)) for name in ("a b", "c/d")}
    with serving(cores, token="secret") as port, browser.page(tmp_path / "profile") as page:
        page.open(f"http://127.0.0.1:{port}/")
        page.until("document.querySelector('#asked')?.hidden === false")
        page.click("#token")
        page.type("secret")
        page.click("#text")
        page.type("𠮷在沈从文路上的家。")
        page.click("button")
        page.until("document.querySelectorAll('mark').length === 3")
        assert page.value("[...document.querySelectorAll('#run option')].map(o => o.value)") == [
            "a b",
            "c/d",
        ]
        marks = "[...document.querySelectorAll('mark')].map(m => [m.firstChild.data, m.lastChild.textContent])"
        assert page.value(marks) == [["沈从", "place, person"], ["文路上", "place"], ["家", "<b>"]]
        assert page.value("document.querySelector('#marked').firstChild.data") == "𠮷在"
        assert page.value("document.querySelector('#problem').textContent") == ""

        page.value("document.querySelector('#text').select()")
        page.type('{"no": 1}')
        page.click("button")
        problem = page.until("document.querySelector('#problem').textContent")
        assert problem == 'missing field "text"'
        assert page.value("document.querySelectorAll('mark').length") == 0
