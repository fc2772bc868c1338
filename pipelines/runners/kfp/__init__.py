"""Submit, list and follow runs on Kubeflow Pipelines.

client       the server: its URL, credentials and services, and each failure as an error
submission   a configuration as a package, a version and a run; what it changes
runner       the runs of a server, as `runners.base` describes them
runs         runs found, listed, ended, tried again; their Workflow and logs
follower    a run followed to its end: steps, failures, results
"""
