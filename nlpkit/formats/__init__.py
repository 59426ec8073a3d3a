"""What stands in the JSONL of two tasks or more: read, checked, written."""
