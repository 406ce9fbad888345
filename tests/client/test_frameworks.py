"""The client in real programs: Flask, Django, FastAPI, Celery, pytest, and for type checkers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from credit_client import (
    ClientSettings,
    CreditError,
    DeadlineExceeded,
    ErrorReason,
    GrantsFull,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidField,
    RateLimited,
    StoreUnavailable,
)
from credit_client import CreditClient as AsyncCreditClient
from credit_client.integrations import problem_of
from credit_client.sync import CreditClient
from credit_client.sync.testing import FakeCreditService, fake_credits

from tests.client.served import Served

# Each test imports its framework: together they take 1.2 s of CPU, in each worker that collects.
if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from fastapi import FastAPI
    from flask import Flask, Response

ROOT = Path(__file__).parents[2]
PACKAGES = ("credit-models", "credit-client")

# Any: the arguments of a call have no common type.
ADDITION: dict[str, Any] = {"user_id": 7, "app_id": 1, "credits": 120, "created_by": 1}
PURCHASE: dict[str, Any] = {**ADDITION, "report_id": "r", "report_name": "Report"}
ONCE = ClientSettings(retry_attempts_max=1)

Serve = Callable[..., AbstractAsyncContextManager[int]]


@pytest.fixture
def served(fake_server: Serve) -> Iterator[Served]:
    with Served(fake_server) as serving:
        yield serving


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InsufficientCredits("", available=1, required=3, shortfall=2), 402),
        (IdempotencyKeyReused("", fields=("credits",)), 409),
        (GrantsFull("", limit=256), 409),
        (RateLimited("", retry_after_seconds=1.0), 429),
        (StoreUnavailable(""), 503),
        (DeadlineExceeded(""), 503),
        (InvalidField("", violations=()), None),
        (CreditError(""), None),
    ],
)
def test_an_error_has_an_http_status_unless_the_app_is_at_fault(
    error: CreditError, status: int | None
) -> None:
    problem = problem_of(error)
    assert (None if problem is None else problem.status) == status
    assert problem is None or problem.body["status"] == status


def _flask_app(credits_: CreditClient) -> "Flask":
    from flask import Flask, jsonify

    app = Flask("shop")

    @app.post("/buy/<int:price>")
    def buy(price: int) -> "Response":
        receipt = credits_.use(**PURCHASE | {"credits": price})
        return jsonify(balance=receipt.balance)

    @app.errorhandler(CreditError)
    def answer(error: CreditError) -> tuple[dict[str, Any], int, dict[str, str]]:
        problem = problem_of(error)
        if problem is None:
            raise error
        return problem.body, problem.status, {"content-type": problem.media_type}

    return app


def test_a_flask_app_shares_a_client_between_its_threads() -> None:
    with fake_credits() as credits_:
        app = _flask_app(credits_)
        credits_.add(**ADDITION)

        def buy(_: int) -> int:
            return app.test_client().post("/buy/10").status_code

        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(buy, range(14)))
        assert sorted(codes) == [200] * 12 + [402] * 2
        assert credits_.balance(app_id=1, user_id=7) == 0


def test_flask_answers_errors_as_problems_without_the_messages_of_the_service() -> None:
    service = FakeCreditService()
    with fake_credits(service, settings=ONCE) as credits_:
        client = _flask_app(credits_).test_client()
        refused = client.post("/buy/10")
        assert (refused.status_code, refused.mimetype) == (402, "application/problem+json")
        body = refused.get_json()
        assert body.pop("request_id")
        assert body == {
            "title": "Payment Required",
            "status": 402,
            "reason": "INSUFFICIENT_CREDITS",
            "shortfall": 10,
        }
        service.fail_next(ErrorReason.STORE_UNAVAILABLE)
        assert client.post("/buy/10").status_code == 503


def test_a_django_view_has_the_client_and_the_middleware_answers_its_errors(
    served: Served,
) -> None:
    import django
    from credit_client.integrations.django import get_credits
    from django.conf import settings as django_settings
    from django.http import HttpResponse
    from django.test import Client
    from django.urls import path

    def buy(request: "HttpRequest", price: int) -> "HttpResponse":
        receipt = request.credits.use(**PURCHASE | {"credits": price})
        return HttpResponse(str(receipt.balance))

    django_settings.configure(
        CREDITS={"target": f"127.0.0.1:{served.port}"},
        MIDDLEWARE=["credit_client.integrations.django.CreditMiddleware"],
        ROOT_URLCONF=(path("buy/<int:price>", buy),),
        ALLOWED_HOSTS=["*"],
    )
    django.setup()
    client = Client()
    refused = client.post("/buy/120")
    assert (refused.status_code, refused.json()["shortfall"]) == (402, 120)
    assert refused.headers["content-type"] == "application/problem+json"
    get_credits().add(**ADDITION)
    assert client.post("/buy/20").content == b"100"
    with pytest.raises(InvalidField):  # the project's own fault: a 500
        client.post("/buy/0")
    get_credits().close()


async def test_a_fastapi_app_injects_its_client_and_answers_errors(fake_server: Serve) -> None:
    from credit_client.integrations.fastapi import Credits, answer_errors, open_credits
    from fastapi import FastAPI

    async with fake_server(FakeCreditService()) as port:
        client = AsyncCreditClient(f"127.0.0.1:{port}")
        app = FastAPI(lifespan=lambda app: open_credits(app, client))
        answer_errors(app)

        @app.post("/buy/{price}")
        async def buy(price: int, credits_: Credits) -> int:
            return (await credits_.use(**PURCHASE | {"credits": price})).balance

        @app.post("/add/{number}")
        async def add(number: int, credits_: Credits) -> int:
            return (await credits_.add(**ADDITION | {"credits": number})).balance

        with pytest.raises(RuntimeError, match="use open_credits"):
            await _post(app, "/buy/10")
        async with app.router.lifespan_context(app):
            status, headers, body = await _post(app, "/buy/10")
            assert (status, body["shortfall"]) == (402, 10)
            assert headers[b"content-type"] == b"application/problem+json"
            assert (await _post(app, "/add/20"))[2] == 20
            assert (await _post(app, "/buy/10"))[2] == 10
            with pytest.raises(InvalidField):  # the app's own fault: a 500
                await _post(app, "/buy/0")


async def _post(app: "FastAPI", path: str) -> tuple[int, dict[bytes, bytes], Any]:
    """Send a request to an ASGI app, and raise what its server would log."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }
    sent: list[Any] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(body)


CELERY = """
import sys
from celery import Celery
from celery.contrib.testing.worker import start_worker
from credit_client import InsufficientCredits
from credit_client.sync import CreditClient

app = Celery("shop", broker="memory://", backend="file://{folder}")
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
credits = CreditClient("127.0.0.1:{port}")

@app.task(name="buy")
def buy(number):
    try:
        receipt = credits.use(
            user_id=7, app_id=1, report_id="r", report_name="Report", credits=10, created_by=1,
            idempotency_key=f"order:{{number}}",
        )
    except InsufficientCredits as error:
        return -error.shortfall
    return receipt.balance

if __name__ == "__main__":
    # The parent has connections already when it forks its workers.
    credits.add(user_id=7, app_id=1, credits=30, created_by=1)
    options = {{"pool": "prefork", "concurrency": 2, "loglevel": "error"}}
    with start_worker(app, perform_ping_check=False, **options):
        orders = [buy.delay(number) for number in (1, 2, 3, 4)]
        results = sorted(each.get(timeout=60, interval=0.01) for each in orders)
        print(results, buy.delay(1).get(timeout=60, interval=0.01) in (20, 10, 0))
    print(credits.balance(app_id=1, user_id=7))
"""


def test_celery_workers_that_are_forked_from_a_parent_with_an_open_client(
    served: Served, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    program = tmp_path / "shop.py"
    program.write_text(CELERY.format(port=served.port, folder=results))
    finished = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (finished.returncode, finished.stdout) == (0, "[-10, 0, 10, 20] True\n0\n"), (
        finished.stderr
    )


def test_the_plugin_of_pytest_has_a_client_and_a_clock(
    credits: CreditClient,  # noqa: A002 - the fixture's name
    credit_service: FakeCreditService,
) -> None:
    credits.grant(**ADDITION, expires_after=timedelta(days=30))
    assert credits.balance(app_id=1, user_id=7) == 120
    credit_service.clock.advance(timedelta(days=30))
    assert credits.balance(app_id=1, user_id=7) == 0


def test_a_typed_program_passes_pyright_in_its_strict_mode(tmp_path: Path) -> None:
    # `make lint` checks the same program with mypy.
    shutil.copy(Path(__file__).with_name("typed_program.py"), tmp_path)
    config = {
        "typeCheckingMode": "strict",
        "extraPaths": [str(ROOT / "packages" / each / "src") for each in PACKAGES],
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    finished = subprocess.run(
        [Path(sys.executable).with_name("pyright"), "--pythonpath", sys.executable, "--outputjson"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    found = json.loads(finished.stdout)
    assert (found["summary"]["filesAnalyzed"], found["generalDiagnostics"]) == (1, [])
