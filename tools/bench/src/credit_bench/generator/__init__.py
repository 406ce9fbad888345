"""The load generator: a process of its own, the same for every server that is measured.

It calls through grpcio's asyncio client, which took 0.20 to 0.26 ms of CPU per call against 0.28 to
0.46 ms for grpclib's, at 1, 16 and 128 callers (2-core machine; ratios).
"""
