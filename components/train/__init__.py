"""The step `train`: fits the model and exports it, including its normalization."""
