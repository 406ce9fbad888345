"""Several processes that serve on one address: a supervisor and its workers.

A worker is a whole server without a listening socket: it has its own event loop, committer and
client of the store. The supervisor accepts connections and passes each to the worker with the
fewest connections.

Alternatives for the sockets, and why they are not used:

- One listening socket that all workers accept from. The worker that wakes first accepts all waiting
  connections: of 128 connections that arrived at once, two workers got 25 and 103.
- A listening socket for each worker (SO_REUSEPORT). The kernel spreads connections by a hash, so
  that 8 connections are likely to be spread as 2 and 6, and connections wait in the queue of a
  worker that is dead or stalled. Unix domain sockets cannot share a path.

Clients of gRPC open few connections and keep them, so an uneven spread would last. A connection
that is passed on costs about 0.5 ms of CPU more (0.9 and 1.0 ms against 0.4 and 0.6, busy 2-core
machine), 0.16 ms of it in the supervisor.

The supervisor's side is in `process`, `group` and `listener`, the worker's in `worker`; `channel`
connects them. `telemetry.workers` adds up what the workers count.
"""
