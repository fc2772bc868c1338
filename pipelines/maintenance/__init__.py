"""Maintenance of a machine and a store.

garbage_collection   `modelyard gc`: finds and removes unused objects
usage                the runs, schedules and servers that use them
doctor               `modelyard doctor`: checks of the machine
"""
