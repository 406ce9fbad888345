"""Silence: why no server of a store serves, from what the driver has learnt of each host."""

from pymongo.server_description import ServerDescription
from pymongo.server_type import SERVER_TYPE
from pymongo.topology_description import TopologyDescription

_DRIVERS_SETTINGS = " (configured timeouts"
"""What the driver appends to the operating system's words."""


_NOT_PRIMARY = (SERVER_TYPE.RSSecondary, SERVER_TYPE.RSArbiter, SERVER_TYPE.RSOther)


def explain(topology: TopologyDescription) -> str:
    """Say for each host of a connection string why it cannot be asked, or takes no writes."""
    servers = topology.server_descriptions().values()
    if not servers:  # the driver forgets whom it was not sent for
        if topology.replica_set_name is None:
            return "the hosts that CREDIT_MONGODB_URI names answer, and none is in a replica set"
        return (
            "the hosts that CREDIT_MONGODB_URI names answer, and none of them is in a replica set"
            f" '{topology.replica_set_name}': see replicaSet= in it, and rs.status().set"
        )
    return "; ".join(_explain_host(server) for server in servers)


def _explain_host(server: ServerDescription) -> str:
    where = f"{server.address[0]}:{server.address[1]}"
    if server.server_type == SERVER_TYPE.RSGhost:
        return f"the replica set of {where} was never initiated: run rs.initiate() once, in mongosh"
    if server.server_type in _NOT_PRIMARY:
        return f"{where} is up and not the primary: see rs.status()"
    if server.error is None:
        return f"{where} does not answer"
    why = str(server.error).partition(_DRIVERS_SETTINGS)[0]
    return why if where in why else f"{where}: {why}"
