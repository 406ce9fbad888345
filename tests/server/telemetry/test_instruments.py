"""Measurements as OpenTelemetry's exporters get them."""

from collections.abc import Mapping

from credit_models import CreditRequest, UserId
from credit_testing.http2_client import Wire, call_headers
from opentelemetry.sdk.metrics.export import DataPointT, NumberDataPoint

from tests.server.telemetry.observed import Observed, Sdk


def _points(sdk: Sdk, name: str) -> list[tuple[Mapping[str, object], int | float]]:
    """Returns the attributes of each series of an instrument, and its value or count."""
    found: list[tuple[Mapping[str, object], int | float]] = []
    for resource in sdk.metrics().resource_metrics:
        for scope in resource.scope_metrics:
            assert scope.scope.name == "credit_server"
            for metric in scope.metrics:
                if metric.name == name:
                    found.extend(
                        (dict(point.attributes or {}), _amount(point))
                        for point in metric.data.data_points
                    )
    return found


def _amount(point: DataPointT) -> int | float:
    return point.value if isinstance(point, NumberDataPoint) else point.count


async def test_the_duration_of_calls_has_the_conventions_attributes(
    sdk: Sdk, server: Observed, wire: Wire
) -> None:
    await wire.call("GetUserCredits", UserId(user_id=7))
    await wire.call("GetUserCredits", UserId(user_id=7))
    await wire.request(call_headers("/made.up.Service/Call"))
    await server.quiet()
    served = {
        "rpc.system.name": "grpc",
        "rpc.method": "credit.v1.CreditService/GetUserCredits",
        "rpc.response.status_code": "OK",
    }
    invented = {
        "rpc.system.name": "grpc",
        "rpc.method": "_OTHER",
        "rpc.response.status_code": "UNIMPLEMENTED",
        "error.type": "UNIMPLEMENTED",
    }
    assert _points(sdk, "rpc.server.call.duration") == [(served, 2), (invented, 1)]


async def test_batches_are_measured(sdk: Sdk, server: Observed, wire: Wire) -> None:
    await wire.call("AddCredits", CreditRequest(user_id=7, app_id=1, credits=5, created_by=9))
    await server.quiet()
    assert _points(sdk, "credit.batch.size") == [({}, 1)]
    assert _points(sdk, "credit.batch.duration") == [({}, 1)]


async def test_what_goes_wrong_is_counted(sdk: Sdk, server: Observed) -> None:
    commits = server.telemetry.commits
    commits.conflict()
    commits.retried()
    commits.commit_unknown()
    commits.shed("queue_full")
    for name in ("credit.conflicts", "credit.retries", "credit.commit.unknown"):
        assert _points(sdk, name) == [({}, 1)]


async def test_refusals_are_counted_whoever_refuses(sdk: Sdk, server: Observed) -> None:
    server.telemetry.commits.watch_shed(lambda: {"calls": 3})
    server.telemetry.commits.shed("queue_full")
    counted = {str(by["cause"]): count for by, count in _points(sdk, "credit.shed") if count}
    assert counted == {"calls": 3, "queue_full": 1}
