"""Portable backups: `credit-server export` and `credit-server import`.

A backup is a folder with chunks of documents (`chunk`) and a manifest that lists them (`manifest`).
`export` writes one into a `folder` of its own, `restoring` imports one, and `history` checks the
entries on the way.
"""
