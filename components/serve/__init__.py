"""The server: predictions over HTTP from a version in the model store.

__main__        the command line
server          starts, follows or pins a version, drains
connection      one HTTP connection: time and size of what arrives
app             who answers what, the queue, errors as replies
routes          which requests there are
body            reads a request's body
tfserving       TF Serving v1
openinference   Open Inference v2
tensors         JSON and bytes become a checked batch
model           a version, loaded and warmed up
pointer         takes the champion when it changes
replies         replies and refusals
metrics         counts requests
exposition      what Prometheus reads
page.html       drop a picture, see the classes
"""
