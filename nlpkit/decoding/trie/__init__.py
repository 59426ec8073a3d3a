"""Sets of token sequences: a file, compressed sparse rows in memory, and the constraint that a
search decodes under."""
