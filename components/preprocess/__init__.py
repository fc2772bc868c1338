"""The step `preprocess`: validate the examples, split them, measure the normalisation."""
