"""Kubeflow Pipelines' API server: where it is, what is sent to it, how its runs fare.

endpoint     which address, and with which credentials
forward      the way through the cluster, where there is no address
client       its services, with every failure made a sentence
submission   a configuration as a package, a version and a run
"""
