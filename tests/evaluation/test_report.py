"""A report: its parts, both pages, and that the page asks for nothing and runs nothing."""

import html.parser
import sys
from pathlib import Path

import orjson
import pytest
from conftest import nlpkit, write_lines

from nlpkit import tasks
from nlpkit.encoders import load_tokenizer
from nlpkit.errors import SettingsError
from nlpkit.evaluation.report import make_sections
from nlpkit.evaluation.report_figures import check_figures, draw, in_key
from nlpkit.evaluation.report_lines import segments, shown_line
from nlpkit.evaluation.report_pages import html_page, markdown_page
from nlpkit.evaluation.report_parts import Figure, Mark, Series
from nlpkit.evaluation.systems import Asked
from nlpkit.jsonl import dumps, read_jsonl

TEXT = "郑阿姨在文汇路<b>遇见了林先生"
NAME = {"start": 0, "end": 3, "label": "name"}
ROAD = {"start": 4, "end": 7, "label": "address"}
WRONG = {"start": 4, "end": 7, "label": "scene", "score": 2.0}
VOID = {"meta", "br", "link", "img", "use", "path", "rect"}


class Page(html.parser.HTMLParser):
    """Checks that elements nest, and keeps what they name."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.texts = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        named = dict(attributes)
        self.addresses += [
            v for k, v in named.items() if k in ("src", "href", "xlink:href", "data")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [v for k, v in attributes if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def task_of(name):
    task_class = tasks.load(name)
    return task_class(task_class.Config(), load_tokenizer("tiny"), None)


def shown(name, record, prediction):
    task = task_of(name)
    return shown_line(task, "f:1", record, task.read(record).gold, task.parse(prediction))


@pytest.fixture
def files(tmp_path):
    found = []
    for name, predicted in (("first", [[NAME, WRONG], [NAME]]), ("second", [[NAME, ROAD], []])):
        lines = []
        for entities in predicted * 10:
            scored = [{"score": 1.0, **entity} for entity in entities]
            gold = {"text": TEXT, "entities": [NAME, ROAD]}
            lines.append({**gold, "prediction": {"entities": scored}})
        found.append(write_lines(tmp_path / f"{name}.jsonl", lines))
    return found


def test_pieces_under_overlapping_marks():
    outer, inner = Mark(0, 4, "right", "a"), Mark(2, 6, "extra", "b")
    found = segments("abcdefgh", [outer, inner])
    assert found == [
        ("ab", [outer], []),
        ("cd", [outer, inner], [outer]),
        ("ef", [inner], [inner]),
        ("gh", [], []),
    ]
    assert segments("", []) == []


def test_entities_are_marked_in_the_text():
    line = shown("ner", {"text": TEXT, "entities": [NAME, ROAD]}, {"entities": [NAME, WRONG]})
    assert list(line.marks) == [
        Mark(0, 3, "right", "name"),
        Mark(4, 7, "missed", "address"),
        Mark(4, 7, "extra", "scene"),
    ]
    assert not line.facts


def test_triples_are_told_and_their_strings_marked():
    gold = {"subject": "长河", "predicate": "作者", "object": "沈从文"}
    record = {"text": "《长河》是沈从文的小说", "spo_list": [gold]}
    line = shown("gplinker", record, {"spo_list": [{**gold, "predicate": "主角"}]})
    assert list(line.facts) == [
        ("missed", "长河 · 作者 · 沈从文"),
        ("extra", "长河 · 主角 · 沈从文"),
    ]
    assert Mark(1, 3, "missed", "") in line.marks
    assert Mark(5, 8, "extra", "") in line.marks


def test_answers_are_told_with_beams():
    record = {"question": "桐溪有多长？", "answer": "桐溪 ||| 长度 ||| 30千米"}
    beam = {
        "subject": "桐溪",
        "meaning": "",
        "predicate": "长度",
        "objects": ["3千米"],
        "score": -1.0,
    }
    line = shown("kgclue", record, {**beam, "beams": [beam, {**beam, "objects": ["4千米"]}]})
    assert line.facts[0] == ("missed", "桐溪 · 长度 · 30千米")
    assert line.facts[1][0] == "extra"
    assert len(line.beams) == 2
    assert line.beams[1].startswith("桐溪 | 长度 | 4千米")


def test_a_figure_is_an_element_that_takes_the_width_of_the_page():
    figure = Figure(
        "F1 & more", "x", "y", [Series("a", [0, 1], [0.2, 0.4])], marked=[(0, 0.2, "t")]
    )
    svg = draw(figure)
    assert svg.startswith('<svg role="img" aria-label="F1 &amp; more"')
    head = svg[: svg.index(">")]
    assert 'width="' not in head
    assert "viewBox" in head
    assert draw(figure) == svg


def test_a_long_name_is_cut_in_the_key_of_a_figure():
    name = "runs/of/a/long/experiment/with-a-large-batch/seed-1"
    assert in_key(name) == "…ent/with-a-large-batch/seed-1"
    assert in_key("runs/ner") == "runs/ner"


def test_the_page_nests_asks_for_nothing_and_runs_nothing(files):
    sections = make_sections(files, Asked(task="ner"), None)
    titles = [section.title for section in sections]
    assert titles[:3] == ["Metrics", "Differences", "By label"]
    assert titles[-1] == f"Errors of {files[1]}"
    text = html_page("<Report>", "today", sections)
    page = Page(text)
    assert "script" not in page.tags
    assert all(address.startswith("#") for address in page.addresses)
    assert "default-src 'none'" in text
    assert "url(http" not in text
    assert page.tags.count("svg") >= 4
    assert "郑阿姨" in page.texts
    assert "<b>" not in text
    assert "−address" in page.texts
    assert "+scene" in page.texts


def test_markdown_has_the_same_sections(files):
    sections = make_sections(files, Asked(task="ner"), None)
    text = markdown_page("Report", "today", sections)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        section.title for section in sections
    ]
    assert "**郑阿姨** (✓name)" in text
    assert "| f1 |" in text
    assert r"\<b\>" in text


def test_without_matplotlib_the_way_out_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError) as raised:
        check_figures()
    assert "nlpkit[report]" in raised.value.hint
    assert "-o report.md" in raised.value.hint


def test_the_command(run, data, tmp_path):
    out = tmp_path / "report.html"
    nlpkit("report", run, "--data", data, "-o", out)
    page = Page(out.read_text(encoding="utf-8"))
    for title in ("Training", "Learning curve", "By predicate", "Precision and recall"):
        assert title in page.texts
    done = nlpkit("report", run, "--data", data, "-o", tmp_path / "report.pdf", check=False)
    assert done.returncode == 2
    assert b".html or .md" in done.stderr


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_has_a_report(name, tmp_path):
    """Every second line of its sample gets the gold of the next as its prediction."""
    task = task_of(name)
    sample = Path(__file__).parents[1] / "golden" / name / "sample.jsonl"
    read = [(record, task.read(record).gold) for _, record in read_jsonl(sample)]
    known = [(record, gold) for record, gold in read if gold is not None]
    lines = []
    for number, (record, gold) in enumerate(known):
        other = known[(number + 1) % len(known)][1]
        prediction = other if number % 2 else gold
        lines.append({**record, "prediction": orjson.loads(dumps(prediction))})
    file = write_lines(tmp_path / "predicted.jsonl", lines)
    sections = make_sections([file], Asked(task=name), None)
    page = Page(html_page(name, "today", sections))
    assert "Kinds of errors" in page.texts
    assert "script" not in page.tags
    assert markdown_page(name, "today", sections).startswith(f"# {name}\n")
