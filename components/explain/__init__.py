"""The exit task `explain`: how a run ended and why, as a paragraph in an artifact and in a webhook.

exit_task    the step: writes the paragraph, posts it to the webhook, records the end of the run
explanation  the paragraph and its fields, and quotations from logs
failure      why a step failed, from its record, process, pod and node
local_run    how a run on this machine ended
kfp_run      how a run on Kubeflow Pipelines ended
workflow     the pods of an Argo Workflow, by step
"""
