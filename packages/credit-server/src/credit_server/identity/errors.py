"""What can be wrong about identities.

IdentityError
└── Unauthenticated    a call came with no identity, or one that does not hold; the caller's fault
"""


class IdentityError(Exception):
    """Something is wrong about identities."""


class Unauthenticated(IdentityError):
    """A call came with no identity, or with one that does not hold.

    Its text is sent to the caller: it says what to do, and nothing about the server's keys.
    """
