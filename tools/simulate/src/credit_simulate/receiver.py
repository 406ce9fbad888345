"""The receiver of an app's webhook, and the audit of the events that it received."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from credit_models.ledger import AlertEvent
from credit_server.store.webhooks import Webhook
from credit_server.webhooks.sender import SendFailed

from credit_simulate.faults import Faults
from credit_simulate.trace import Trace

Event = tuple[int, int, int, int]


class Receiver:
    """Receives events from all servers. It implements the sender that a dispatcher uses."""

    def __init__(self, faults: Faults, trace: Trace) -> None:
        """Prepare to receive.

        Args:
            faults: Decides which events and acknowledgements are lost.
            trace: Receives a line for each event.
        """
        self._faults = faults
        self._trace = trace
        self._received: defaultdict[str, list[AlertEvent]] = defaultdict(list)
        self._acknowledged: set[str] = set()

    async def send(self, event: AlertEvent, _: Webhook) -> None:
        """Receive an event.

        Raises:
            SendFailed: The event or its acknowledgement is lost.
        """
        await self._faults.travel()
        if self._faults.strike("webhook away"):
            raise SendFailed("the receiver is away")
        self._trace("webhook", f"receives {event.id}")
        self._received[event.id].append(event)
        await self._faults.travel()
        if self._faults.strike("acknowledgement lost"):
            raise SendFailed("no answer")
        self._acknowledged.add(event.id)

    def findings(self, events: Mapping[str, Event], left: Sequence[str]) -> Iterator[str]:
        """Yield events that were lost, made up or changed.

        Args:
            events: The events of the app, by id: the user, the sequence, the balance, and the
                credits of the alert.
            left: The ids of the events whose deliveries are still stored.
        """
        for id_, copies in self._received.items():
            if any(copy != copies[0] for copy in copies):
                yield f"webhook: event {id_} was sent with different contents"
            if id_ not in self._acknowledged and id_ not in left:
                yield f"webhook: event {id_} was dropped before its acknowledgement"
            first = copies[0]
            sent = first.user_id, first.sequence, first.balance, first.alert.credits
            if events.get(id_) != sent:
                yield f"webhook: {first} was sent, but the event is {events.get(id_)}"
        if lost := events.keys() - self._received.keys() - set(left):
            yield f"webhook: the events {sorted(lost)} did not arrive and have no delivery"
        if len(set(left)) < len(left):
            yield f"webhook: an event has several deliveries: {sorted(left)}"
