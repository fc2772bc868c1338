"""A small Kubernetes client, and explanations of its errors and events.

cluster      the client
pod_problem  why a pod does not run
scheduling   why a pod is not scheduled
api_errors   why the API server refuses a request
quantities   quantities such as 500m and 2Gi
"""

from typing import Any

Json = dict[str, Any]
"""An object as JSON."""
