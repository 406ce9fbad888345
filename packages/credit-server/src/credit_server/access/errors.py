"""What can be wrong about identities.

IdentityError
├── Unauthenticated    a call came with no identity, or one that does not hold; the caller's fault
└── FileUnusable       a file of keys, identities or certificates cannot be used; the operator's
"""


class IdentityError(Exception):
    """Something is wrong about identities."""


class Unauthenticated(IdentityError):
    """A call came with no identity, or with one that does not hold.

    Its text is sent to the caller: it says what to do, and nothing about the server's keys.
    """


class FileUnusable(IdentityError):
    """A file of keys, identities or certificates cannot be used.

    Its text is for the operator: it names the file and says what to do, and quotes nothing of it.
    """
