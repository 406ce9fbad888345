"""The peer: the service as one would write it plainly, with one MongoDB transaction per call.

It is what the benchmark compares with, and meant to be as good as a plain service can be: google's
gRPC and protobuf in C, the official asynchronous driver, and as few round trips as the rules allow.
"""
