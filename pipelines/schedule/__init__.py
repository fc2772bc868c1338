"""Runs that recur: what starts them is made to be what the configuration says.

settings     the section `schedule`
cron         a cron line: its fires, in another zone, in other programs' words
mark         how a schedule says that it is modelyard's, and of what
state        what is asked for and what is there, and what every scheduler does
recurring/   as a recurring run of Kubeflow Pipelines
local/       on this machine: as a timer of systemd, or a line of the crontab
"""
