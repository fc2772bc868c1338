"""What executes runs: processes of this machine (local), pods without KFP (pods), a KFP server (kfp).

base         the interface: runners, runs, and what they tell
select       which runner is for what
local, pods, kfp   the three
runs         the folders of runs on this machine
differences  two submissions, or two runs, side by side
reports      the report of a run, or of a version
"""
