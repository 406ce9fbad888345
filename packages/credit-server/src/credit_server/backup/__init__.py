"""Portable backups: `credit-server export` and `credit-server import`.

A backup is a folder with chunks of documents (`chunk`) and a manifest that lists them (`manifest`).
`export` writes a backup, `restoring` imports one, and both check the entries with `history`.
"""
