"""Execute runs: as local processes (local), as pods without KFP (pods), on a KFP server (kfp).

base         the interface: runners, runs, summaries
select       the runner of an environment
local, pods, kfp   the three
run_folder   the folders of runs on this machine
differences  compares two submissions or two runs
summaries    the fields of a run's summary
reports      the report of a run, or of a version
"""
