"""The errors of backups.

BackupError
├── BackupUnusable    the folder is no backup, is incomplete, or is damaged
└── LedgerDamaged     the ledger does not add up, and no backup can be made of it
"""


class BackupError(Exception):
    """A backup cannot be made or imported."""


class BackupUnusable(BackupError):
    """A folder is no backup, is incomplete, or is damaged."""


class LedgerDamaged(BackupError):
    """A history does not add up to its account."""
