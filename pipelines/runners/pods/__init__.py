"""The steps as pods of a cluster, for a run that this machine leads: no Kubeflow Pipelines is needed.

run        a run: kfp.local keeps the order, the conditions and the cache
launcher   what kfp.local starts for each task: it starts the pod and follows it
pod        the pod of a step, from the compiled pipeline
"""
