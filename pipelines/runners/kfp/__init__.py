"""Submit, list and follow runs on Kubeflow Pipelines.

client      connects to the server: URL, credentials, errors
submission  uploads a pipeline and starts a run; compares it with the last run
runner      implements `runners.base`: starts and lists runs, and follows a run to its end
runs        finds, lists and cancels runs; reads their Workflows and logs
"""
