"""Trained models at work: devices, batches, predictions for records, the filter of `predict`."""
