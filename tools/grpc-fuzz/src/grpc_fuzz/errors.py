"""What is wrong with what the caller gave.

Misuse
├── ConfigError     a key of the configuration, or an option of the command line
├── SchemaError     the contract
└── Unreachable     the server, before the first case was sent
"""


class Misuse(ValueError):
    """The run cannot start or continue because of the caller's input. The command exits with 2."""


class ConfigError(Misuse):
    """The configuration cannot be used. The message names the key and the reason."""


class SchemaError(Misuse):
    """The contract cannot be read. This is the caller's mistake and not the server's."""


class Unreachable(Misuse):
    """The server did not answer before the first case was sent."""
