"""The step `train`: fit the model and export it, including its normalization."""
