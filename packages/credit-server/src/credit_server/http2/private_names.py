"""The private names of h2, hpack and grpclib that the server uses. They are checked at import.

Their public names cannot reset one stream for its fault, stop reading in the middle of a buffer, or
write several frames at once.
"""

from credit_models.private_names import PrivateNames, check_private_names

PRIVATE_NAMES: PrivateNames = {
    "h2.connection:H2Connection": (
        "_closed_streams",
        "_handle_data_on_closed_stream(events, exc, frame)",
        "_prepare_for_sending(frames)",
        "_receive_data_frame(frame)",
        "_receive_frame(frame)",
        "_receive_goaway_frame(frame)",
        "_receive_headers_frame(frame)",
        "_receive_naked_continuation(frame)",
        "_receive_priority_frame(frame)",
        "_receive_rst_stream_frame(frame)",
        "_receive_settings_frame(frame)",
        "_receive_window_update_frame(frame)",
        "_stream_closed_by(stream_id)",
    ),
    "h2.frame_buffer:FrameBuffer": ("_data", "_headers_buffer", "_update_header_buffer(f)"),
    "h2.stream:H2Stream": ("_track_content_length(length, end_stream)",),
    # Not private, but if they were renamed, setting them would fail nowhere.
    "h2.stream:H2StreamStateMachine": ("state", "stream_closed_by"),
    "hpack:Encoder": ("_encode_table_size_change()",),
    "grpclib._typing": ("ICheckable", "IServable"),
    "grpclib._typing:IServable": ("__mapping__()",),
    "grpclib.config:Configuration": ("_keepalive_time",),
    "grpclib.events": ("_DispatchServerEvents",),
    "grpclib.health.check:ServiceStatus": ("__status__()",),
    "grpclib.metadata": ("_MetadataLike",),
    "grpclib.protocol:Connection": ("_connection", "_transport"),
    "grpclib.protocol:Peer": ("_transport",),
    "grpclib.protocol:Stream": ("_h2_connection",),
    "grpclib.server:Handler": ("__gc_step__()", "_cancelled", "_tasks"),
    "grpclib.server:Server": (
        "__dispatch__",
        "__gc_step__()",
        "_config",
        "_handlers",
        "_loop",
        "_mapping",
        "_protocol_factory()",
        "_server",
        "_server_closed_fut",
    ),
    "grpclib.server:Stream": (
        "_cardinality",
        "_codec",
        "_recv_type",
        "_send_initial_metadata_done",
        "_send_message_done",
        "_send_trailing_metadata_done",
        "_send_type",
        "_stream",
    ),
}

check_private_names("credit-server", PRIVATE_NAMES)
