"""A model of accounts, and an auditor that finds answers which no allowed order of events explains.

The fuzzing of the calls and the simulation share it.
"""
