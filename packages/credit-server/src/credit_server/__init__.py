"""The credit ledger's server: gRPC on asyncio, group commit on MongoDB."""
