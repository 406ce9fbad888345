"""The address of the metrics: could a server show them there?"""

import errno

from credit_server.doctor.finding import Finding, fails, ok, warning
from credit_server.http2.listener import try_address
from credit_server.settings import ServerSettings

_CHECK = "metrics"
_REMEDY = "choose another with --metrics-host and --metrics-port, or say --no-metrics"


async def check_metrics(settings: ServerSettings) -> Finding:
    """Judge where metrics are to be shown, as `serve` would find it."""
    if not settings.metrics:
        return ok(_CHECK, "are switched off")
    host, port = settings.metrics_host, settings.metrics_port
    if port == 0:
        return ok(_CHECK, "any free port is taken")
    where = f"{host} port {port}"
    if (host, port) == (settings.host, settings.port):
        return fails(_CHECK, f"{where} is where the calls come in", _REMEDY)
    error = await _refused(host, port)
    if error is None:
        return ok(_CHECK, f"{where} is free")
    if error.errno != errno.EADDRINUSE:
        return fails(_CHECK, f"{where} cannot be listened on: {error.strerror}", _REMEDY)
    address = await _refused(settings.host, settings.port)
    if address is not None and address.errno == errno.EADDRINUSE:
        # By the server that runs already, most likely: the address is judged by its own check.
        return ok(_CHECK, f"{where} is in use, as is the server's own address")
    if "metrics_port" in settings.model_fields_set:
        return fails(_CHECK, f"{where} is in use: no server starts with it", _REMEDY)
    return warning(
        _CHECK,
        f"{where} is in use: a server takes another, where Prometheus does not look",
        "name a free one with --metrics-port",
    )


async def _refused(host: str, port: int) -> OSError | None:
    try:
        await try_address(host, port)
    except OSError as error:
        return error
    return None
