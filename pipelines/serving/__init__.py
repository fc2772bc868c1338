"""Models that are served.

platforms   what serves a model on the cluster of an environment
server_url  where its server answers, directly or through the API server
prediction  predictions for files
smoke_test  one prediction after a run
"""
