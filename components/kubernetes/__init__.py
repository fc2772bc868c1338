"""Kubernetes as modelyard uses it.

cluster      a thin client; the official one is imported by its first use
pod_problem  what keeps a pod from running
scheduling   which nodes could take a pod, and why none does
api_errors   what the API server refuses
quantities   500m and 2Gi as numbers and as words
"""

from typing import Any

Json = dict[str, Any]
"""An object as the API server gives it."""
