"""Pretraining of an encoder on plain text, in the order of the data: corpus -> blocks -> objectives
-> pretrain."""
