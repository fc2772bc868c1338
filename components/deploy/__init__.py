"""The step deploy: publish a version, and roll it out on this machine or on a cluster.

deployer          what the step does; on this machine a server is verified and the pointer moves
rollout           the order of a rollout on a cluster, promotion and rollback by hand
tracks            the candidate and stable: claim, withdraw, reconcile, restore
canary_analysis   whether a candidate may stay, by its metrics beside stable's
readiness         waiting for pods
serving_platform  a model's objects on a cluster; objects makes them from templates/
verification      golden requests and where they are sent
status            what `modelyard rollout status` shows
local             a real server on this machine, for deployer and for commands
"""
