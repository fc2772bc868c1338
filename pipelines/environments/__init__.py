"""Where steps and servers run: this machine, or a Kubernetes cluster. `load.load_environment` reads one."""
