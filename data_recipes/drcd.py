"""DRCD to `mrc_seq2seq` and `mrc_mlm`: as CMRC 2018, in traditional script.

    in   {"data": [{"title": "霧燈", "paragraphs": [{"context": "《霧燈》是許蓁的小說", "qas": [{"id": "1-1",
          "question": "霧燈的作者是誰？", "answers": [{"id": "1", "text": "許蓁", "answer_start": 5}]}]}]}]}
    out  {"id": "1-1", "question": "霧燈的作者是誰？", "context": "《霧燈》是許蓁的小說", "answers": ["許蓁"]}

The script is kept. See `data_recipes.cmrc2018` for the rest.

Source: https://github.com/DRCKnowledgeTeam/DRCD (DRCD_training.json, DRCD_dev.json,
DRCD_test.json).
"""

from __future__ import annotations

import sys

from data_recipes import run
from data_recipes.cmrc2018 import convert

if __name__ == "__main__":
    sys.exit(run(convert))
