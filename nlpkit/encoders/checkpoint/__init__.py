"""Checkpoints of the BERT family: their files, what their tensors say they are, and how they are
loaded."""
