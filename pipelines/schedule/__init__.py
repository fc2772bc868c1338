"""Recurring runs on Kubeflow Pipelines (KFP), which `modelyard schedule` makes match the section `schedule`.

Other packages import `recurring.RecurringRuns`; `desired` is how a configuration becomes a recurring run.
"""
