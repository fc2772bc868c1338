"""A schedule as a recurring run of Kubeflow Pipelines, which cannot be changed: a new one takes its place.

scheduler   the order in which that is done
wanted      what the configuration asks for, in Kubeflow Pipelines' words
stamp       its mark
inventory   the recurring runs that are there
retirement  how one is deleted without its runs
"""
