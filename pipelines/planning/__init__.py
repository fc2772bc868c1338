"""What a run takes, before it is started; and what it took, after it.

planner      makes a plan; `plan` is the record, with its estimates and where plans are kept
dataset      what is known about the data
measuring    asks a process, or a pod, about the model
hardware     the device that trains, and other accelerators with their prices
render       the screen
guard        what `submit` and `schedule apply` ask before they start anything
comparison   plan against actual, in the report of a run
"""
