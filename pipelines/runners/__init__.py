"""Execute runs: as local processes, as pods without KFP, or on a KFP server.

base              the interface: runners, runs, summaries
select            selects the runner of an environment, and finds runs
local, pods, kfp  the implementations
run_folder        the folder of a run on this machine
results           the summary and the report of a run, and the reports of versions
differences       compares two configurations or two runs
"""
