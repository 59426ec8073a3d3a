"""From characters to tokens and back: tokenizers with offsets, jieba words, windows over long
texts."""
