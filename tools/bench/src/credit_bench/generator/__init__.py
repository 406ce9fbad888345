"""The load generator: a separate process, the same for every server that is measured.

It uses grpcio's asyncio client, which measured 0.20 to 0.26 ms of CPU per call against 0.28 to
0.46 ms for grpclib's, at 1, 16 and 128 callers (on a 2-core machine; useful as ratios only).
"""
