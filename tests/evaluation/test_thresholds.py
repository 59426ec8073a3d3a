"""Thresholds: the one tuned on dev, and its worth on lines that it has not seen, computed by hand."""

import pytest

from nlpkit.evaluation.scoring import scoring_task
from nlpkit.evaluation.thresholds import above, untuned_half
from nlpkit.tasks.ner import Entity, Prediction

TEXT = "北京大学在中关村"


@pytest.fixture(scope="module")
def task():
    return scoring_task(None, "ner", [], "cpu")[0]


def found(*places):
    """Entities of one character, each a place, or (place, score)."""
    entities = []
    for place in places:
        start, score = place if isinstance(place, tuple) else (place, None)
        entities.append(Entity(start, start + 1, TEXT[start], "地点", score=score))
    return Prediction(entities)


SEEN = found(0), found((0, 2.0), (5, 1.0))
"""F1 is best between the scores: the threshold is 1.5."""
UNSEEN = found(0, 2), found((0, 1.8), (2, 1.4), (5, 0.2))
"""Above 1.5 lies one of two gold facts, and nothing wrong: F1 = 2 * 1 / (1 + 2)."""


def test_the_threshold_of_all_lines_has_seen_them(task):
    settings = task.tune([SEEN, UNSEEN])
    assert settings.threshold == pytest.approx(1.2)
    pairs = [(gold, task.cut(loose, settings)) for gold, loose in (SEEN, UNSEEN)]
    assert task.score(pairs)["f1"] == 1.0


def test_the_threshold_of_one_half_is_tried_on_the_other(task):
    assert untuned_half(task, [UNSEEN, SEEN], [False, True]) == {"f1_untuned_half": 0.666667}
    # Tuned on the other line it is 0.8, which lets one right and one wrong fact of this one pass.
    assert untuned_half(task, [UNSEEN, SEEN], [True, False]) == {"f1_untuned_half": 0.666667}


def test_an_empty_half_tells_nothing(task):
    assert untuned_half(task, [SEEN, UNSEEN], [True, True]) == {}
    assert untuned_half(task, [SEEN, UNSEEN], [False, False]) == {}


def test_what_lies_on_the_threshold_is_cut(task):
    entities = found((0, 1.0), (1, 0.0), (2, -1.0), 3).entities
    assert [one.start for one in above(0.0, entities)] == [0]
    assert [one.start for one in above(-0.5, entities)] == [0, 1, 3]
    assert len(above(None, entities)) == 4
