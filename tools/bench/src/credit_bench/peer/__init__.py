"""The peer: a plain implementation of the service, with one MongoDB transaction per call.

The benchmark compares `credit-server` with it. It is as fast as a plain service can be: google's
gRPC and protobuf in C, the official asynchronous driver, and as few round trips as the rules allow.
"""
