"""The server: predictions over HTTP from a version in the model store."""
