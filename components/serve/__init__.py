"""The server: predictions over HTTP from a version in the model store.

__main__        the command line
server          starts, follows or pins a version, drains; limits on each connection
app             routes, bodies, the queue, errors as replies
tfserving       TF Serving v1
openinference   Open Inference v2
tensors         JSON and bytes become a checked batch
model           a version, loaded and warmed up; follows the champion
replies         replies and refusals
metrics         counts requests, and what Prometheus reads
page.html       one example in the browser: a picture or numbers, and the answer
"""
