"""Where accounts and history are kept: one port, MongoDB and a memory twin behind it."""
