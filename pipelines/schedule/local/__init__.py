"""A schedule on this machine, without Kubeflow Pipelines.

scheduler   what a schedule does here, whatever starts it
job         what is started: a command, and the configuration as it was applied
files       what is written for it
table       what starts it
systemd     a timer of systemd, where it runs
crontab     a line of the crontab, elsewhere
"""
