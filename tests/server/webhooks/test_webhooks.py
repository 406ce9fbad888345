"""Test that webhooks get signed events from public addresses alone, until they acknowledge them."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from random import Random
from unittest.mock import Mock

import pytest
from credit_models import SetWebhookRequest
from credit_models.ledger import Alert, AlertEvent, Direction
from credit_models.translation.commands import broken_fields
from credit_models.translation.webhooks import key_of
from credit_server.store.memory import MemoryStore
from credit_server.store.webhooks import Webhook
from credit_server.webhooks.dispatcher import (
    ATTEMPTS_MAX,
    CONCURRENT_MAX_PER_APP,
    CONCURRENT_MAX_PER_WEBHOOK,
    Dispatcher,
    pause_after,
)
from credit_server.webhooks.network import is_public, url_fault
from credit_server.webhooks.sender import Sender, SendFailed, payload_of
from credit_server.webhooks.signature import headers_of, new_secret
from credit_testing.certificates import Authority
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from tests.server.webhooks.endpoint import BAD_RECORD, Endpoint, answer_of, endpoint

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
EVENT = AlertEvent(
    id="5" * 24,
    user_id=7,
    app_id=1,
    alert=Alert(credits=20, direction=Direction.FALLS_BELOW),
    balance=19,
    transaction_id="6" * 24,
    sequence=3,
    created_at=NOW,
)


def webhook(port: int = 1, *, host: str = "127.0.0.1", scheme: str = "http") -> Webhook:
    return Webhook(
        id="8" * 24,
        app_id=1,
        url=f"{scheme}://{host}:{port}/hook",
        secret=new_secret(),
        created_at=NOW,
        created_by=9,
    )


async def test_a_message_is_verified_by_the_package_of_standard_webhooks() -> None:
    async with endpoint() as there, Sender(allow_private=True) as sender:
        to = webhook(there.port)
        await sender.send(EVENT, to)
    (received,) = there.received
    message = Verifier(to.secret).verify(received.body, received.headers)
    assert message == {
        "type": "alert.crossed",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "data": {
            "id": EVENT.id,
            "user_id": 7,
            "app_id": 1,
            "credits": 20,
            "direction": "FALLS_BELOW",
            "balance": 19,
            "transaction_id": "6" * 24,
            "sequence": 3,
        },
    }
    assert received.headers["webhook-id"] == EVENT.id
    assert received.headers["content-type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        Verifier(new_secret()).verify(received.body, received.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(to.secret).verify(received.body + b" ", received.headers)


def test_the_signature_is_that_of_the_example_of_standard_webhooks() -> None:
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    headers = headers_of("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, secret)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "whsec_!", "AAAA" * 10])
def test_a_secret_has_24_to_64_bytes_and_the_prefix(secret: str) -> None:
    with pytest.raises(ValueError, match="must be whsec_ followed by base64 of 24 to 64 bytes"):
        key_of(secret)
    assert len(key_of(new_secret())) == 32
    assert new_secret() not in repr(replace(webhook(), secret=new_secret()))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (answer_of(500), "the answer has the status 500"),
        (answer_of(302, "location: http://127.0.0.1:1/\r\n"), "the answer has the status 302"),
        (b"no HTTP\r\n\r\n", "RemoteProtocolError"),
        (b"", "no answer within 0.2 seconds"),
    ],
)
async def test_what_is_no_acknowledgement_is_a_failure(answer: bytes, why: str) -> None:
    async with endpoint() as there:
        there.answers.append(answer)
        seconds = 20 if answer else 0.2
        async with Sender(allow_private=True, attempt_seconds=seconds) as sender:
            with pytest.raises(SendFailed, match=why):
                await sender.send(EVENT, webhook(there.port))
    assert len(there.received) == 1


async def test_a_sender_without_events_loads_no_certificates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ssl.create_default_context", Mock(side_effect=AssertionError))
    async with Sender(allow_private=True):
        pass


async def test_a_long_answer_is_not_read_to_its_end() -> None:
    async with endpoint() as there, Sender(allow_private=True) as sender:
        there.answers.append(
            answer_of(200).replace(b"length: 0", b"length: 999999999") + b"x" * 2**18
        )
        await sender.send(EVENT, webhook(there.port))
        await sender.send(EVENT, webhook(there.port))
    assert len(there.received) == 2


async def test_a_port_where_nothing_listens_is_a_failure(unused_tcp_port: int) -> None:
    async with Sender(allow_private=True) as sender:
        with pytest.raises(SendFailed, match="ConnectError"):
            await sender.send(EVENT, webhook(unused_tcp_port))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1"])
async def test_no_private_address_gets_a_connection(host: str) -> None:
    async with endpoint() as there, Sender(allow_private=False) as sender:
        fault = "the URL must not have a private address"
        if host == "localhost":
            fault = "the host cannot be resolved, or has an address that is not public"
        with pytest.raises(SendFailed, match=fault):
            await sender.send(EVENT, webhook(there.port, host=host, scheme="https"))
    assert there.received == []


async def test_a_name_that_cannot_be_resolved_fails_like_one_with_a_private_address() -> None:
    faults = set()
    async with Sender(allow_private=False) as sender:
        for host in ("localhost", "no-such-host.invalid", "a..b", "..."):
            with pytest.raises(SendFailed) as failed:
                await sender.send(EVENT, webhook(host=host, scheme="https"))
            faults.add(str(failed.value))
    assert faults == {"the host cannot be resolved, or has an address that is not public"}


async def test_a_url_that_is_no_longer_allowed_gets_no_connection() -> None:
    async with endpoint() as there, Sender(allow_private=False) as sender:
        with pytest.raises(SendFailed, match="the URL must begin with https://"):
            await sender.send(EVENT, webhook(there.port, host="example.com"))
    assert there.received == []


async def test_an_unexpected_error_is_a_failure_without_its_text() -> None:
    broken = replace(webhook(), secret="no secret")
    async with Sender(allow_private=True) as sender:
        with pytest.raises(SendFailed, match=r"^ValueError$"):
            await sender.send(EVENT, broken)


async def test_an_error_of_tls_after_the_handshake_is_a_failure(tmp_path: Path) -> None:
    authority = Authority(folder=tmp_path / "ca")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued = authority.issue("localhost")
    tls.load_cert_chain(issued.certificate, issued.key)
    trusted = ssl.create_default_context(cafile=str(authority.file))
    async with endpoint(tls) as there:
        there.answers.append(BAD_RECORD)
        async with Sender(allow_private=True, ssl_context=trusted) as sender:
            with pytest.raises(SendFailed, match=r"^SSLError$"):
                await sender.send(EVENT, webhook(there.port, host="localhost", scheme="https"))


async def test_the_next_address_is_tried_if_a_connection_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def resolve(host: str, port: int, **_: object) -> Sequence[tuple[object, ...]]:
        return [(2, 1, 6, "", (address, port)) for address in ("127.9.9.9", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    async with endpoint() as there, Sender(allow_private=True) as sender:
        await sender.send(EVENT, webhook(there.port, host="two.example"))
    assert len(there.received) == 1


async def test_the_connection_goes_to_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that resolves to a public address first and to this machine then is no way in."""
    asked: list[str] = []
    addresses = iter([["198.51.101.7"], ["127.0.0.1"]])

    async def resolve(host: str, port: int, **_: object) -> Sequence[tuple[object, ...]]:
        asked.append(host)
        return [(2, 1, 6, "", (address, port)) for address in next(addresses)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    async with endpoint() as there, Sender(allow_private=False, attempt_seconds=0.2) as sender:
        for _ in range(2):
            with pytest.raises(SendFailed):
                await sender.send(
                    EVENT, webhook(there.port, host="rebinding.example", scheme="https")
                )
    assert asked == ["rebinding.example"] * 2
    assert there.received == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False),
        ("fec0::1", False),
        ("::127.0.0.1", False),
        ("::ffff:0:127.0.0.1", False),
        ("5f00::1", False),
        ("3fff::1", False),
        ("192.0.0.8", False),
        ("192.88.99.1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_an_address_is_public_or_not(address: str, expected: bool) -> None:
    assert is_public(ip_address(address)) is expected


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://example.com/hook?a=b", ""),
        ("https://example.com:8443", ""),
        ("https://8.8.8.8/", ""),
        ("http://example.com", "must begin with https://"),
        ("https://127.0.0.1/", "must not have a private address"),
        ("https://[::1]/", "must not have a private address"),
    ],
)
def test_a_url_is_allowed_or_its_fault_is_named(url: str, fault: str) -> None:
    assert url_fault(url) == fault
    assert broken_fields(SetWebhookRequest(app_id=1, created_by=9, url=url)) == ()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com",
        "https://user:word@example.com",
        "https://example.com/#part",
        "https://exa mple.com",
        "https://ex\N{LATIN SMALL LETTER A WITH DIAERESIS}mple.com",
        "https://example.com:99999",
        "https://[::1",
        "https://a..b/",
        "https://.../",
        f"https://{'a' * 64}.example/",
        "https://",
        "no URL",
    ],
)
def test_what_is_no_url_of_http_breaks_the_contract(url: str) -> None:
    request = SetWebhookRequest(app_id=1, created_by=9, url=url, secret="whsec_AAAA")
    assert [each.field for each in broken_fields(request)] == ["url", "secret"]


class Recorder:
    """Observes a dispatcher."""

    def __init__(self) -> None:
        self.noted: list[object] = []

    def delivered(self) -> None:
        self.noted.append("delivered")

    def failed(self) -> None:
        self.noted.append("failed")

    def waiting(self, oldest_seconds: float, dead: int) -> None:
        self.noted.append((oldest_seconds, dead))


@dataclass
class Scene:
    """A store with a webhook and an event, and a dispatcher with a clock that the test moves."""

    store: MemoryStore
    there: Endpoint
    recorder: Recorder
    make: Callable[[], Dispatcher]
    now: datetime = NOW


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    store, recorder = MemoryStore(), Recorder()
    async with endpoint() as there, Sender(allow_private=True) as sender:
        await store.webhooks.set(webhook(there.port))
        await store.webhooks.set(replace(webhook(there.port), id="9" * 24, app_id=2))
        store.alert_events.add([EVENT])
        await store.alert_events.order(10)

        def make() -> Dispatcher:
            return Dispatcher(store, sender, recorder, random=Random(1), clock=lambda: found.now)

        found = Scene(store, there, recorder, make)
        yield found


async def test_an_event_is_sent_once_by_several_servers() -> None:
    async with scene() as found:
        await asyncio.gather(*(found.make().send_due() for _ in range(3)))
        await found.make().send_due()
        assert len(found.there.received) == 1
        assert found.recorder.noted == ["delivered"]
        assert await found.store.webhooks.backlog() == (None, 0)


async def test_new_deliveries_are_sent_before_the_next_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("credit_server.webhooks.dispatcher._INTERVAL_SECONDS", 3600.0)
    async with scene() as found:
        dispatcher = found.make()
        running = asyncio.create_task(dispatcher.run())
        await asyncio.sleep(0)
        assert found.there.received == []
        dispatcher.wake()
        while "delivered" not in found.recorder.noted:  # noqa: ASYNC110 - it reports no event
            await asyncio.sleep(0.001)
        running.cancel()
        assert len(found.there.received) == 1


async def test_a_bad_url_of_one_app_does_not_stop_the_events_of_another() -> None:
    async with scene() as found:
        webhooks, events = found.store.webhooks, found.store.alert_events
        await webhooks.set(replace(webhook(), id="7" * 24, app_id=3, url="https://a..b/"))
        for app_id in (1, 3):
            events.add(
                [replace(EVENT, id=f"{n:024x}", app_id=app_id) for n in range(app_id, 40, 4)]
            )
        await events.order(100)
        await found.make().send_due()
        assert len(found.there.received) == 1 + 10
        pending = [each for each in webhooks._deliveries.values() if each.app_id == 3]
        assert {(each.attempts, each.error) for each in pending} == {
            (1, "the host cannot be resolved, or has an address that is not public")
        }
        assert found.recorder.noted.count("failed") == len(pending) == 10


class Crashing(Sender):
    """Fails to send with an error that no sender should raise."""

    async def send(self, event: AlertEvent, webhook: Webhook) -> None:
        raise RuntimeError("this must not end the others")


async def test_an_error_of_one_delivery_is_counted_and_leaves_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with scene() as found, Crashing(allow_private=True) as crashing:
        found.store.alert_events.add([replace(EVENT, id="4" * 24)])
        await found.store.alert_events.order(10)
        await Dispatcher(found.store, crashing, found.recorder, clock=lambda: NOW).send_due()
        deliveries = found.store.webhooks._deliveries.values()
        assert {(each.attempts, each.error) for each in deliveries} == {(1, "RuntimeError")}
        assert found.recorder.noted == ["failed"] * 2


async def test_a_webhook_that_does_not_respond_does_not_delay_others() -> None:
    async with scene() as found, endpoint() as slow:
        slow.answers += [b""] * 200
        store = found.store
        await store.webhooks.set(replace(webhook(slow.port), id="7" * 24, app_id=3))
        # The events of the slow webhook are due first.
        early = replace(EVENT, app_id=3, created_at=NOW - timedelta(seconds=1))
        store.alert_events.add([replace(early, id=f"{n:024x}") for n in range(200)])
        await store.alert_events.order(1000)
        running = asyncio.create_task(found.make().run())
        try:
            # There is no event to wait for.
            while len(slow.received) < CONCURRENT_MAX_PER_WEBHOOK:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            store.alert_events.add([replace(EVENT, id="4" * 24)])
            await store.alert_events.order(10)
            while len(found.there.received) < 2:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert len(slow.received) == CONCURRENT_MAX_PER_WEBHOOK


async def test_an_app_that_replaces_its_webhooks_gets_no_more_attempts_at_once() -> None:
    async with scene() as found, endpoint() as slow:
        slow.answers += [b""] * 200
        webhooks, events = found.store.webhooks, found.store.alert_events
        for number in range(9):
            to = replace(webhook(slow.port), id=f"{number + 1:024x}", app_id=3)
            await webhooks.set(replace(to, url=f"{to.url}/{number}"))
        early = replace(EVENT, app_id=3, created_at=NOW - timedelta(seconds=1))
        events.add([replace(early, id=f"{n:024x}") for n in range(4)])
        await events.order(100)
        running = asyncio.create_task(found.make().run())
        try:
            while not found.there.received:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)
            claimed = [each for each in webhooks._deliveries.values() if each.attempts]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert len([each for each in claimed if each.app_id == 3]) == CONCURRENT_MAX_PER_APP


async def test_a_failed_event_is_sent_again_later_with_the_same_id() -> None:
    async with scene() as found:
        found.there.answers.append(answer_of(503))
        dispatcher = found.make()
        await dispatcher.send_due()
        await dispatcher.send_due()
        assert len(found.there.received) == 1
        await dispatcher.observe()
        found.now += timedelta(seconds=6)
        await dispatcher.send_due()
        assert len({each.headers["webhook-id"] for each in found.there.received}) == 1
        assert len(found.there.received) == 2
        await dispatcher.observe()
        assert found.recorder.noted == ["failed", (0.0, 0), "delivered", (0.0, 0)]


async def test_an_event_of_a_server_that_ended_is_sent_by_another_one() -> None:
    async with scene() as found:
        found.there.answers.append(b"")
        sending = asyncio.create_task(found.make().send_due())
        while not found.there.received:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        sending.cancel()
        await found.make().send_due()
        assert len(found.there.received) == 1
        found.now += timedelta(minutes=2)
        await found.make().send_due()
        assert len(found.there.received) == 2
        assert found.recorder.noted == ["delivered"]


async def test_after_a_day_of_failures_an_event_is_a_dead_letter_that_can_be_sent_again() -> None:
    async with scene() as found:
        found.there.answers += [answer_of(500)] * ATTEMPTS_MAX
        dispatcher = found.make()
        while (await found.store.webhooks.backlog()).dead == 0:
            await dispatcher.send_due()
            found.now += timedelta(minutes=10)
        assert timedelta(hours=18) < found.now - NOW < timedelta(hours=30)
        assert len(found.there.received) == ATTEMPTS_MAX
        found.now += timedelta(days=9)
        await dispatcher.send_due()
        assert len(found.there.received) == ATTEMPTS_MAX
        await dispatcher.observe()
        assert found.recorder.noted[-1] == (0.0, 1)
        ((letter, to),) = await found.store.webhooks.dead_letters(1, limit=9)
        assert (letter.error, letter.attempts) == ("the answer has the status 500", ATTEMPTS_MAX)
        assert to.url == webhook(found.there.port).url
        assert await found.store.webhooks.resend(1, letter.id, found.now)
        await dispatcher.send_due()
        assert await found.store.webhooks.backlog() == (None, 0)


async def test_the_events_of_a_removed_webhook_are_dropped() -> None:
    async with scene() as found:
        (stored,) = await found.store.webhooks.of_app(1)
        await found.store.webhooks.remove(1, stored.url)
        await found.make().send_due()
        assert found.there.received == []
        assert await found.store.webhooks.backlog() == (None, 0)


def test_pauses_grow_to_about_a_day_in_all() -> None:
    for seed in range(20):
        pauses = [pause_after(attempts, Random(seed)) for attempts in range(1, ATTEMPTS_MAX)]
        assert pauses == sorted(
            pauses, key=lambda each: min(each or timedelta(0), timedelta(hours=4))
        )
        total = sum((each for each in pauses if each is not None), timedelta())
        assert timedelta(hours=19) < total < timedelta(hours=28)
    assert pause_after(ATTEMPTS_MAX, Random(1)) is None


async def test_a_certificate_must_be_that_of_the_name(tmp_path: Path) -> None:
    authority = Authority(folder=tmp_path / "ca")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued = authority.issue("localhost")
    tls.load_cert_chain(issued.certificate, issued.key)
    trusted = ssl.create_default_context(cafile=str(authority.file))
    async with (
        endpoint(tls) as there,
        Sender(allow_private=True, ssl_context=trusted) as sender,
        Sender(allow_private=True) as stranger,
    ):
        await sender.send(EVENT, webhook(there.port, host="localhost", scheme="https"))
        for one, host in ((sender, "127.0.0.1"), (stranger, "localhost")):
            with pytest.raises(SendFailed, match="ConnectError"):
                await one.send(EVENT, webhook(there.port, host=host, scheme="https"))
    assert len(there.received) == 1


def test_the_payload_is_compact_json() -> None:
    assert json.loads(payload_of(EVENT))["data"]["balance"] == 19
    assert b" " not in payload_of(EVENT)
