"""Ways to send a case again: `buf curl`, a Python script, the bytes, and `grpc-fuzz replay`."""

import base64
import shlex
import shutil
import sys
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from grpc_fuzz.model import Case
from grpc_fuzz.schema import Schema
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target, Tls

# The environment variables that replace the secret tokens.
TOKEN, EXPIRED_TOKEN = "TOKEN", "EXPIRED_TOKEN"


def reproducers(case: Case, schema: Schema, settings: Settings) -> dict[str, str]:
    """Return every way to send the case again, by kind. Variables replace the secret tokens."""
    if case.wire is not None:
        return {"bytes": _wire_bytes(case)}
    ways = {"python": _python(case, settings), "bytes": _request_bytes(case)}
    line = _buf_curl(case, schema, settings)
    return ways if line is None else {"buf curl": line, **ways}


def replay_line(name: str, settings: Settings) -> str:
    """Return the command that sends a stored crash again, from any folder.

    The crash holds the other options of the run. Only this command sends a sequence with the ids
    that the server returns this time.
    """
    state = ["--state-directory", str(settings.state_directory.absolute())]
    return shlex.join([_command(), "replay", name, *state])


def _command() -> str:
    """Return the name of this tool if the shell finds it, otherwise its path."""
    name = "grpc-fuzz"
    started = Path(sys.argv[0])
    if started.name != name or shutil.which(name) is not None:
        return name
    return str(started.absolute())


def _buf_curl(case: Case, schema: Schema, settings: Settings) -> str | None:
    """Return the command, or None if JSON cannot express the bytes of the request."""
    body = _json(case, schema)
    if body is None:
        return None
    parts = ["buf", "curl", "--protocol", "grpc", *_transport_options(settings.target)]
    if settings.image is not None:
        parts += ["--schema", str(settings.image.absolute())]
    for key, value in (*settings.metadata, *case.metadata):
        text = value if isinstance(value, str) else base64.b64encode(value).decode()
        parts += ["-H", f"{key}: {text}"]
    scheme = "http" if settings.target.tls is None else "https"
    rest = ["-d", body, f"{scheme}://{settings.target.authority}{case.method.path}"]
    # In double quotes, because the shell must expand the variables. Neither a token nor a key
    # contains another character that the shell expands.
    proof = [
        f'-H "{key}: {value}"'
        for key, value in _credentials(case, settings, f"${TOKEN}", f"${EXPIRED_TOKEN}")
    ]
    return " ".join([shlex.join(parts), *proof, shlex.join(rest)])


def _credentials(
    case: Case, settings: Settings, token: str, expired: str
) -> tuple[tuple[str, str], ...]:
    if settings.credentials is None:
        return ()
    return settings.credentials.redacted(case.presented, token, expired)


def _json(case: Case, schema: Schema) -> str | None:
    objects = []
    for request in case.requests:
        try:
            message = schema.parse(case.method.input, request)
            text = json_format.MessageToJson(
                message, indent=None, preserving_proto_field_name=True, descriptor_pool=schema.pool
            )
            again = json_format.Parse(
                text, schema.message_class(case.method.input)(), descriptor_pool=schema.pool
            )
        except (DecodeError, json_format.Error, ValueError, TypeError):
            return None
        # JSON loses unknown fields and explicit zeros.
        if again.SerializeToString(deterministic=True) != request:
            return None
        objects.append(text)
    return "".join(objects)


def _transport_options(target: Target) -> list[str]:
    options = [] if target.socket is None else ["--unix-socket", target.socket]
    if target.tls is None:
        return ["--http2-prior-knowledge", *options]
    files: list[tuple[str, Path | None]] = [
        ("--cacert", target.tls.ca),
        ("--cert", target.tls.certificate),
        ("--key", target.tls.key),
    ]
    for name, path in files:
        options += [] if path is None else [name, str(path.absolute())]
    if target.tls.server_name is not None:
        options += ["--servername", target.tls.server_name]
    return options


def _python(case: Case, settings: Settings) -> str:
    """Return a script on grpcio that sends the same bytes, including those of earlier calls."""
    channel = f"grpc.insecure_channel({str(settings.target)!r})"
    if settings.target.tls is not None:
        channel = _secure_channel(settings.target, settings.target.tls)
    lines = ["import os", "", "import grpc", "", f"channel = {channel}"]
    for call in (*case.before, case):
        lines += _python_call(call, settings)
    return "\n".join(lines)


def _secure_channel(target: Target, tls: Tls) -> str:
    """Return an expression for the channel that reads the files of the certificates."""
    files = {
        "root_certificates": tls.ca,
        "private_key": tls.key,
        "certificate_chain": tls.certificate,
    }
    arguments = ", ".join(
        f"{name}=open({str(path.absolute())!r}, 'rb').read()"
        for name, path in files.items()
        if path is not None
    )
    options = ""
    if tls.server_name is not None:
        options = f", options=[('grpc.ssl_target_name_override', {tls.server_name!r})]"
    return (
        f"grpc.secure_channel({str(target)!r}, grpc.ssl_channel_credentials({arguments}){options})"
    )


def _python_call(case: Case, settings: Settings) -> list[str]:
    method = case.method
    sides = ["stream" if streams else "unary" for streams in _streams(case)]
    token, expired = (f'{{os.environ["{name}"]}}' for name in (TOKEN, EXPIRED_TOKEN))
    entries = [repr(entry) for entry in (*settings.metadata, *case.metadata)]
    entries += [f"({k!r}, f{v!r})" for k, v in _credentials(case, settings, token, expired)]
    request = f"iter({case.requests!r})" if method.client_streaming else repr(case.requests[0])
    options = f"metadata=[{', '.join(entries)}], timeout={settings.limits.request_timeout:g}"
    call = f"channel.{'_'.join(sides)}({method.path!r})({request}, {options})"
    return [
        "try:",
        f"    print({f'list({call})' if method.server_streaming else call})",
        "except grpc.RpcError as error:",
        "    print(error.code(), error.details(), error.trailing_metadata())",
    ]


def _streams(case: Case) -> tuple[bool, bool]:
    return case.method.client_streaming, case.method.server_streaming


def _request_bytes(case: Case) -> str:
    """Return the gRPC frames in hexadecimal: flag, length, message."""
    frames = [b"\0" + len(request).to_bytes(4, "big") + request for request in case.requests]
    return "\n".join(frame.hex() for frame in frames)


def _wire_bytes(case: Case) -> str:
    """Return the steps of the script, one per line, with payloads in hexadecimal."""
    lines = []
    for step in case.wire.steps if case.wire is not None else ():
        parts: list[str] = [step.action, *([f"x{step.times}"] if step.times != 1 else [])]
        parts += [f"{name!r}: {value!r}" for name, value in step.headers]
        parts += [step.payload.hex()] if step.payload else []
        parts += ["END_STREAM"] if step.end_stream else []
        lines.append(" ".join(parts))
    return "\n".join(lines)
