"""The step `preprocess`: validates the examples, splits them, computes the normalization."""
