"""The step deploy: publish a version, and roll it out on a serving platform.

deployer         the step
rollout          the phases of a rollout; manual promotion and rollback
stable           moves the champion pointer, updates and restores stable
canary_analysis  the comparison of a candidate with stable while both receive traffic
verification     golden requests
status           the output of `modelyard rollout status`
platforms/       the interface of a serving platform, and its implementations
"""
