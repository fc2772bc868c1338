"""The step `preprocess`: validate the examples, split them, compute the normalization."""
