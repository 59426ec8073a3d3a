"""A small run of every task, saved as a training saves it, with random weights: it predicts in
milliseconds, and what a campaign wants to know does not depend on what it has learnt."""

import shutil
from pathlib import Path

import torch

from nlpkit import encoders, tasks
from nlpkit.inference.predictor import Predictor
from nlpkit.jsonl import read_jsonl
from nlpkit.run import Run, describe
from nlpkit.text.backend import vocabulary_hash

GOLDEN = Path(__file__).resolve().parent / "golden"
SHAPE = encoders.ShapeConfig(
    family="bert", layers=1, hidden_size=16, heads=2, intermediate_size=16, max_length=256
)
SETTINGS = {
    "cln": {"max_length": 12, "top_k": 1},
    "entity_linking": {},
    "ape210k": {"max_equation": 8},
    "mrc_seq2seq": {"max_answer": 4},
}
"""Settings with which a task predicts quickly."""


def records_of(name):
    """The records of the task's sample, without gold where it can be left out."""
    return [record for _, record in read_jsonl(GOLDEN / name / "sample.jsonl")]


def save_run(name, folder, **given):
    """Writes a run of the task to the folder, which is made, and beside it the knowledge base of a
    task that has one; returns the run.

    `given` are settings of the task.
    """
    torch.manual_seed(0)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    task_class = tasks.load(name)
    fields = task_class.Config.__dataclass_fields__
    settings = {k: v for k, v in SETTINGS.get(name, {}).items() if k in fields} | given
    for kb in (GOLDEN / name).glob("kb.*"):
        settings["kb"] = shutil.copy(kb, folder.with_name(kb.name))
    encoder, backend = encoders.for_pretraining(None, SHAPE)
    tokenizer = encoders.tokenizer_of(encoder, backend)
    places = [(f"sample:{n}", record) for n, record in enumerate(records_of(name), 1)]
    config = task_class.prepare(task_class.Config(**settings), places, folder)
    task = task_class(config, tokenizer, folder)
    about = describe(name, "small", {tasks.section_name(name): config}, {})
    about["encoder"]["spec"] = encoder.spec()
    about["tokenizer_sha256"] = vocabulary_hash(backend)
    run = Run(folder, about, task, tokenizer, task.build_model(encoder).eval())
    run.save_new()
    run.save_model({})
    return run


def predictions_of(run, records):
    """What the run predicts for some records, as `predict` would."""
    outcomes = Predictor(run.task, run.model)(list(enumerate(records, 1)))
    return [outcome.prediction for outcome in outcomes]
