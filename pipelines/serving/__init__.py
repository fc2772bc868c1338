"""Models that are served.

platforms   what serves a model on the cluster of an environment, and where it answers
prediction  predictions for files
smoke_test  one prediction after a run
"""
