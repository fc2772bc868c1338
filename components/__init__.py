"""The steps, one package for each, in the order of the flow; and the modules that they share.

fingerprint  identifies data and run without a download          -> identity
ingest       downloads, verifies and decodes the data            -> raw
preprocess   validates, splits, computes statistics              -> features
train        trains and exports the model with its normalization -> model, history
evaluate     compares candidate and champion on the same examples -> evaluation, report, decision
deploy       publishes a version, verifies it, rolls it out      -> version
explain      reports how the run ended (the exit task)
serve        the model server, which deploy starts (not a step)
"""
