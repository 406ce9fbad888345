"""Translation between the contract's messages and the ledger's values, in both directions.

The server and the SDK's fake use it. Apps that use only the client do not import it.
"""
