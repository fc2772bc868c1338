"""What a run takes, before it is started: one file a thing.

plan, planning            the record, and how it is made
measuring, process,       what is asked of a model: in a process of its own, or in a pod
pod_probe
survey, preparation,      what is known about the data
dataset
memory, compute, time,    the estimates
speed, money, storage,
spot
hardware, offers, place   accelerators, what they offer, and where the plan is for
verdict, effort, risk,    what speaks against it, what is to do first, what can go wrong, what it rests on
inputs
residuals, written,       what was planned beside what happened
comparison
guard                     what `submit` asks
render, facts, words,     how it is told
quantity
"""
