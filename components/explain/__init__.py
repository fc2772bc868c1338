"""The exit task `explain`: how a run ended and why, in a paragraph, as an artifact and to a webhook.

exit_task       what the component does: write the paragraph, post it to the webhook
explanation     the paragraph and its parts
local_run       how a run ended that this machine leads, from its steps' logs
kfp_run         how a run on Kubeflow Pipelines ended, from its Workflow, its pods and their logs
workflow        the pods of a Workflow, by step
failure_reason  why a step failed on a cluster and what to change
log_lines       the lines that a step itself wrote, to be quoted
"""
