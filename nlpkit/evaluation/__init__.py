"""Metrics, the score of a run or of a file of predictions, and the check of data."""
