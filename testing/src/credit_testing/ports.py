"""Find ports that stay free while what listens on them restarts."""

import socket
from random import SystemRandom

HOST = "127.0.0.1"
# Below the ports that Linux gives to outgoing connections and to `bind(0)` (from 32768): another
# test that runs at the same time cannot take one of these while its owner restarts.
_LASTING_PORTS = range(20_000, 32_000)


def lasting_port() -> int:
    """Return a free loopback port that stays free while its owner restarts."""
    random = SystemRandom()
    while True:
        port = random.choice(_LASTING_PORTS)
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) != 0:
                return port
