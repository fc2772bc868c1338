"""Environments: this machine or a Kubernetes cluster. `load.load_environment` reads one."""
