"""Made-up relation extraction: the records of `nlpkit.samples.gplinker`."""

from nlpkit.samples.gplinker import records

__all__ = ["records"]
