"""Plan memory, time, storage and cost of a run, and compare the plan with the run.

planner      makes a plan; `plan` has the record, its formulas and its file
dataset      describes the data before a run
measuring    measures the model in a process or a pod
hardware     the device that trains, and the accelerators with their prices
render       prints a plan
feasibility  the checks of `submit` and `schedule apply`
comparison   planned and actual values in the report of a run
"""
