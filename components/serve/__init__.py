"""The server: predictions over HTTP from a version in the model store.

__main__        the command line
server          starts with the champion or a pinned version; drains after a signal
app             ASGI application: routes, queue, threads
access          tokens, TLS, cross-site requests, access log, trace context
body            reads and decompresses request bodies
connection      limits on size and time of each connection
limits          limits from the container's memory and CPUs
tfserving       TF Serving v1
openinference   Open Inference v2
tensors         converts JSON and bytes into a validated batch
model           loads a version and warms it up; follows the champion pointer
replies         replies and HTTP errors
metrics         request counts for Prometheus
page.html       predicts one example in a browser
"""
