"""modelyard takes a model from data to a served, guarded endpoint on Kubeflow Pipelines.

components  the work: one package per step, and what the steps share
pipelines   the wiring: the pipeline, configuration, environments, runners, schedules, planning, command line

Both are folders of the repository that this package links to, so that a project which has folders of these
names itself can use modelyard. Importing `modelyard` imports nothing else.
"""
