"""Translation between the contract's messages and the ledger's values, in both directions.

The server and the SDK's fake translate with it. Nothing that an app imports at its start does.
"""
