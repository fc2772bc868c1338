"""The steps as pods of a cluster, for a run that this machine leads: no Kubeflow Pipelines is needed.

runner     the runs that this machine leads, and has led
execution  a run: kfp.local keeps the order, the conditions and the cache
launcher   the process that kfp.local starts for each task: it runs the pod and ends as the pod does
pod        the pod of a step, from the compiled pipeline and step.yaml, and how it is followed
"""
