"""The private names of grpclib that the SDK uses, checked at import.

There is no public way to send a PING, to keep an answer that is complete when its connection ends,
or to give a call another deadline than grpclib's.
"""

from credit_models.private_names import PrivateNames, check_private_names

PRIVATE_NAMES: PrivateNames = {
    "grpclib.client:Channel": (
        "__dispatch__",
        "_config",
        "_create_connection()",
        "_h2_config",
        "_host",
        "_protocol",
        "_protocol_factory()",
        "_ssl",
    ),
    "grpclib.client:Stream": (
        "_codec",
        "_recv_initial_metadata_done",
        "_recv_type",
        "_send_request_done",
        "_stream",
        "_wrapper",
    ),
    "grpclib.metadata": ("_Metadata",),
    "grpclib.protocol:Buffer": ("_ack_callback",),
    "grpclib.protocol:Connection": ("_connection",),
    "grpclib.protocol:Stream": ("__terminated__(reason)",),
}

check_private_names("credit-client", PRIVATE_NAMES)
