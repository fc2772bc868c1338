"""Runs on this machine: kfp.local handles order, conditions and cache; each step is a process.

runner      starts, lists and opens runs that this machine leads
execution   executes a run in this process
"""
