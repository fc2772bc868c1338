"""Runs on this machine: kfp.local handles order, conditions and cache; each step is a process.

runner      starts, lists and opens the runs of this machine
execution   executes a run in this process
tasks       tracks the tasks of kfp.local: states, logs, failures, outputs
"""
