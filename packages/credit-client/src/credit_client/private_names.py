"""The private names of grpclib that the SDK uses, checked at import.

There is no public way to send a PING, to keep an answer that is complete when its connection ends,
or to give a call another deadline than grpclib's.
"""

from credit_models.private_names import PrivateNames, check_private_names

PRIVATE_NAMES: PrivateNames = {
    "h2.connection:H2Connection": ("_receive_goaway_frame(frame)",),
    "grpclib.client:Channel": (
        "__connect__()",
        "__dispatch__",
        "_authority",
        "_config",
        "_h2_config",
        "_host",
        "_protocol",
        "_protocol_factory()",
    ),
    "grpclib.client:Stream": (
        "_channel",
        "_codec",
        "_end_done",
        "_maybe_raise()",
        "_recv_initial_metadata_done",
        "_recv_type",
        "_send_message_done",
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
