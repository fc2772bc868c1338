"""The step `train`: fit the model and export it with its preprocessing inside."""
