"""The wiring: the pipeline, its configuration, its compiler, its runners and the command line."""
