"""Prediction over many files: one output file an input file, done by several processes or machines.

`shard` does one file, `processes` and `on_ray` spread the files over workers.
"""
