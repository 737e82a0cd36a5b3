"""The page of `quality`: perplexity and accuracy against bits saved, differences to dense, the answer in words."""
