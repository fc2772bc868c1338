"""Submit, list and follow runs on Kubeflow Pipelines.

client      connects to the server: URL, credentials, errors
submission  uploads a pipeline and starts a run; compares it with the last run
runner      implements `runners.base` for the runs of a server
runs        finds, lists and cancels runs; reads their Workflows and logs
follower    follows a run to its end: steps, failures, results
"""
