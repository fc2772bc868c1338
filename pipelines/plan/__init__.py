"""What a run takes, before it is started: one file a thing.

plan, planning            the record, and how it is made
measuring, process,       what is asked of a model: in a process of its own, or in a pod
pod_probe
survey, preparation,      what is known about the data
dataset
memory, compute, time,    the estimates
money, storage, spot
hardware, offers, place   accelerators, what they offer, and where the plan is for
verdict, risk, inputs     what speaks against it, what can go wrong, what it rests on
residuals, comparison     what was planned beside what happened
guard                     what `submit` asks
render, words, quantity   how it is told
"""
