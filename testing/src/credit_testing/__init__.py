"""Provide what the tests and the tools share: clients, certificates, faulty stores, processes."""
