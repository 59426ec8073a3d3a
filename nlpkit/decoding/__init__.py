"""Decoding under constraints: tensors only, no task. Trie on disk -> table on a device -> search;
see `constraint`."""
