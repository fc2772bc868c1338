"""Environments: this machine or a Kubernetes cluster.

load          `load_environment` reads an environment
environment   its keys
accelerators  the GPUs and TPUs that a step can request
"""
