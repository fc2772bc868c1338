"""The pipeline, its configuration, compiler and runners, and the command line."""
