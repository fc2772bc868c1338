"""Kubeflow Pipelines' API server: where it is, what is sent to it, how its runs fare.

endpoint     which address, and with which credentials
tunnel       the way through the cluster, where there is no address
client       its services, with every failure made a sentence
refusals     the sentences
pages        its lists as a whole
lookup       what it has already
submission   a configuration as a package, a version and a run
changes      what a submission changes
package      what a package says of its steps
records      runs found, listed, ended, tried again
following    a run followed to its end: steps, logs, failures, results
kept         what is kept of a run: its Workflow and its logs
"""
