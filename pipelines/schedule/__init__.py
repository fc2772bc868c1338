"""Runs that recur: a schedule makes what starts them be what the configuration says.

settings        the section `schedule`
cron            a cron line: its fires, in another zone, in other programs' words
mark            how a schedule says that it is ours, and of what
wanted          what the configuration asks for
recurring       as a recurring run of Kubeflow Pipelines
systemd         as a timer of this machine's systemd
crontab         as a line of this machine's crontab
"""
