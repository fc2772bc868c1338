"""Execute runs: as local processes, as pods without KFP, or on a KFP server.

base              the interface: runners, runs, summaries
select            selects the runner of an environment, and finds runs
local, pods, kfp  the implementations
run_folder        the folder of a run on this machine
summaries         the fields of a run's summary
reports           the report of a run or of a version
differences       compares two configurations or two runs
"""
