"""Compile a configuration for KFP.

compiler   the arguments and the pipeline as YAML
uploads    uploads local data and code for pods
preflight  checks a pipeline before it is sent to a server
code       the fingerprint of the code of a step
images     builds the images
lean_kfp   imports the SDK of KFP faster
"""
