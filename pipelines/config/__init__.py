"""The configuration of a model.

config      its sections; `load` reads and validates a file
layers      the file, variables and --set, with the origin of each key
validation  validates a document and formats its errors
gate        checks the section `gate`
schedule    the section `schedule`
text        strict YAML, and durations
arguments   checks the types of arguments of the Python API
"""
