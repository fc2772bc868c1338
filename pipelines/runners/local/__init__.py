"""Runs on this machine: kfp.local keeps the order, the conditions and the cache; each step is a process.

runner      the runs that this machine leads, and has led
execution   a run that this process leads
"""
