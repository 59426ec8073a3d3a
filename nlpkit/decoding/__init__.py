"""Decoding under constraints: tensors only, no task. Trie on disk -> table on the device -> search."""
