"""Math23K to `ape210k`: math word problems with their equations and answers, in the fields of
Ape210K.

    in   {"id": "7", "original_text": "读了(2/3)，还剩20页，全书几页？", "equation": "x=20/(1-(2/3))",
          "ans": "60"}
    out  {"id": "7", "text": "读了(2/3)，还剩20页，全书几页？", "equation": "x=20/(1-(2/3))", "answer": "60"}

An object a line, or over several lines as published. Equations have square brackets, `^` and
percent, answers such forms as `((4)/(7))` and `3((1)/(2))`: all that stays as it is, the task reads
it. Lines whose equation does not give the answer stay too, see `data_recipes.ape210k`.

Source: Wang, Liu and Shi, Deep Neural Solver for Math Word Problems, EMNLP 2017.
"""

from __future__ import annotations

import sys

from data_recipes import run
from data_recipes.ape210k import convert

__all__ = ["convert"]

if __name__ == "__main__":
    sys.exit(run(convert))
