"""The exit task `explain`: how a run ended and why, in a paragraph, as an artifact and to a webhook.

exit_task    what the component does: write the paragraph, post it to the webhook
explanation  the paragraph and its parts, and the lines of logs that it quotes
local_run    how a run ended that this machine leads, from its steps' logs
kfp_run      how a run on Kubeflow Pipelines ended and what to change, from its Workflow, pods and logs
workflow     the pods of a Workflow, by step
"""
