"""Serving platforms, servers and predictions, for commands and runners.

platforms   the serving platform and the server of a model in an environment
prediction  predictions for files
smoke_test  one prediction after a run
"""
