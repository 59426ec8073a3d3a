"""nlpkit: train, predict and evaluate Chinese NLP models on JSONL.

Start reading at `nlpkit.task`, which shows the way of the data.
"""

__version__ = "0.1.0"
