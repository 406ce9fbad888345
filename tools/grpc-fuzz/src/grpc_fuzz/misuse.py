"""What is wrong with what the caller gave.

Misuse
├── ConfigError     config      a key of the configuration, or an option
├── SchemaError     schema      the contract
└── Unreachable     runner      the server, before the first case was sent
"""


class Misuse(ValueError):
    """The run cannot begin or go on, and that is the caller's to mend."""
