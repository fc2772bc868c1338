"""Runs of this machine whose steps are pods of a cluster, without Kubeflow Pipelines.

runner     starts, lists and opens these runs
execution  executes a run: kfp.local handles order, conditions and cache
launcher   the process that kfp.local starts for each task: it runs a pod, and exits when the pod ends
pod        creates the pod of a step from the compiled pipeline and step.yaml, and follows it
"""
