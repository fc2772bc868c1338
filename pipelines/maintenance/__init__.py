"""`modelyard gc`: what nothing needs any more, found by a policy, shown, and removed."""
