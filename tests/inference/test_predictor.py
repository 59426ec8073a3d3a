"""A predictor keeps nothing from one record to the next: threads may share it, and a line has the
same prediction in whatever part of a file it is predicted."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from small_runs import records_of, save_run

from nlpkit import tasks
from nlpkit.inference.predictor import Predictor
from nlpkit.jsonl import dumps


def predictions(predictor, numbered):
    return [dumps(outcome.prediction) for outcome in predictor(numbered)]


@pytest.mark.parametrize("name", tasks.names())
def test_threads_may_share_a_predictor(name, tmp_path):
    run = save_run(name, tmp_path / "run")
    predictor = Predictor(run.task, run.model, batch_size=1)
    numbered = list(enumerate(records_of(name)[:6], 1))
    expected = predictions(predictor, numbered)
    with ThreadPoolExecutor(3) as threads:
        orders = [numbered, numbered[::-1], numbered[3:] + numbered[:3]]
        found = list(threads.map(lambda order: predictions(predictor, order), orders))
    assert found == [expected, expected[::-1], expected[3:] + expected[:3]]


def test_what_is_drawn_for_a_line_depends_on_its_number_alone(tmp_path):
    run = save_run("cln", tmp_path / "run", top_k=None, temperature=2.0)
    predictor = Predictor(run.task, run.model, batch_size=1)
    record = records_of("cln")[0]
    whole = predictions(predictor, [(number, record) for number in range(1, 7)])
    assert len(set(whole)) > 1
    assert predictions(predictor, [(5, record)]) == whole[4:5]
    long = {**record, "text": None, "prefix": "山" * 600}  # no line can begin so
    assert predictor([(4, long)])[0].error is not None
    assert predictions(predictor, [(4, long), (5, record)])[1] == whole[4]
