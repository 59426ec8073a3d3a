"""Blocks of models that a paper describes, whatever task uses them."""
