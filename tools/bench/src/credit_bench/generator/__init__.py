"""The load generator: a separate process, the same for every server that is measured.

It is a minimal HTTP/2 client with prepared messages. A full client would use more of the machine
than the server: grpcio's asyncio client takes 0.20 to 0.26 ms of CPU per call, grpclib's 0.28 to
0.46 ms (at 1, 16 and 128 callers on a 2-core machine; useful as ratios only).
"""
