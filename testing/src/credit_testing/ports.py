"""Find ports that stay free while what listens on them restarts."""

import socket
from random import SystemRandom

HOST = "127.0.0.1"
# Below the ports that Linux gives to outgoing connections and to `bind(0)` (from 32768): another
# test that runs at the same time cannot take one of these while its owner restarts.
_LASTING_PORTS = range(20_000, 32_000)


def lasting_port() -> int:
    """Return a free loopback port that stays free while its owner restarts.

    A UDP socket with the same port number reserves it until this process ends. No other call
    returns the port, in this process or in another one.
    """
    random = SystemRandom()
    while True:
        port = random.choice(_LASTING_PORTS)
        reservation = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            reservation.bind((HOST, port))
            with socket.socket() as probe:
                probe.bind((HOST, port))
        except OSError:
            reservation.close()
            continue
        reservation.detach()  # keep the socket open until this process ends
        return port
