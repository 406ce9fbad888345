"""Notices TLS handshakes that fail: event loops close such a connection without a word."""

import ssl
from collections.abc import Callable


def on_failed_handshake(context: ssl.SSLContext, told: Callable[[str], None]) -> None:
    """Have it told when a handshake fails that a context makes from now on.

    Who it was with is not known: a loop tells a protocol of its peer after the handshake. Nor is it
    told of a peer that leaves, or says nothing until its time is over, instead of failing.

    Args:
        context: A server's context; it makes its TLS objects of another class then.
        told: Is given OpenSSL's word for what was wrong, such as `unsupported protocol`. It must
            not raise.
    """

    class Handshake(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise  # there is more to come
            except ssl.SSLError as error:
                told((error.reason or "unknown").replace("_", " ").lower())
                raise

    context.sslobject_class = Handshake
