"""Recurring runs on Kubeflow Pipelines (KFP), from the section `schedule` of a configuration.

recurring  applies, lists and changes recurring runs; other packages import `RecurringRuns`
desired    the recurring run of a configuration
"""
