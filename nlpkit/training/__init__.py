"""Training: data, batches, the loop, its checkpoints, and a run made of them."""
