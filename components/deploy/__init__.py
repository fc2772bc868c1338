"""The step deploy: publish a version, and roll it out on a serving platform.

deployer         what the step does
rollout          the order of a rollout; promotion and rollback by hand
canary_analysis  whether a candidate may stay, by what it and stable answer
verification     golden requests and where they are sent
status           what `modelyard rollout status` shows
platforms/       the interface of a serving platform, and its implementations
"""
