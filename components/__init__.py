"""The work, one directory per step, in the order of the flow.

fingerprint  identifies data and run without a download        -> identity
ingest       fetches, verifies and decodes it                  -> raw
preprocess   validates, splits, measures                       -> features
train        fits the model, exports it with its preprocessing -> model, history
evaluate     scores candidate and champion on the same examples    -> evaluation, report, promote or not
deploy       publishes a version, verifies it, moves champion  -> version
serve        answers predictions from a version (not a step: what deploy rolls out)

Shared ground: artifacts (what passes between steps), errors, events, images, interface (what an image and the
pipeline agree on), kubernetes, lifeline, machine (proxies, certificates, Keras), records,
report, settings, shards, source, step (what surrounds the work of each), store.
"""
