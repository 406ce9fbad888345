"""The bugs that the simulation must find. Each is a change to the published code."""

from credit_client.call import Caller
from credit_client.effect import WriteEffect
from credit_client.effect import _of_status as outcome_of_status
from credit_client.write_stream import WriteStream
from credit_models.ledger.alerts import _crossings as crossings
from credit_models.ledger.alerts import changed_alerts, event_id, with_events
from credit_models.ledger.caps import cap_exceeded
from credit_models.ledger.draft import Draft
from credit_models.ledger.holds import capture_hold
from credit_models.ledger.requests import _differences as differences
from credit_models.ledger.reversals import _refund as refund
from credit_models.ledger.reversals import _reversed_before as reversed_before
from credit_models.ledger.settle import _end_hold as end_hold
from credit_models.ledger.settle import _expire as expire
from credit_models.ledger.transfers import transfer
from credit_models.ledger.uses import no_room, use
from credit_server.api import history_service
from credit_server.api.history_service import HistoryService
from credit_server.api.policies import PolicyChanges
from credit_server.api.reads import Reads
from credit_server.api.watch import _AppSource as AppSource
from credit_server.api.watch import _UserSource as UserSource
from credit_server.commit import batch
from credit_server.commit.batch import BatchWriter, Plan
from credit_server.commit.clock import Clock
from credit_server.commit.policies import PolicyCache
from credit_server.store.alert_events import MemoryAlertEvents
from credit_server.store.memory import MemoryStore
from credit_server.store.memory import _MemoryTransaction as MemoryTransaction
from credit_server.store.memory_queries import summary_of
from credit_server.webhooks.dispatcher import Dispatcher

from credit_simulate.mutation import Edit, Mutation

# ruff: noqa: SLF001 - bugs are planted where the code is

MUTATIONS = (
    Mutation(
        "a write is answered before its commit",
        (
            Edit(
                BatchWriter.commit,
                {
                    "await transaction.commit(check)": (
                        "asyncio.ensure_future(transaction.commit(check)).add_done_callback("
                        "lambda done: done.cancelled() or done.exception())"
                    )
                },
            ),
        ),
    ),
    Mutation(
        "an unknown commit is taken for a success",
        (
            Edit(
                BatchWriter.commit,
                {
                    "self._forget(commands, error)": (
                        "self._forget(commands, error)\n"
                        "        if isinstance(error, CommitUnknown): return batch.outcomes"
                    )
                },
            ),
        ),
        seed=4,
    ),
    Mutation(
        "an answer that depends on reads is not committed",
        (
            Edit(
                BatchWriter.commit,
                {"if verified or batch.transactions:": "if batch.transactions:"},
            ),
        ),
        seed=6,
    ),
    Mutation(
        "a rejection is decided on a cached balance",
        (
            Edit(
                BatchWriter.commit,
                {"if batch.depends_on_reads and not verified:": "if False:"},
            ),
        ),
        seed=1,
    ),
    Mutation(
        "keys are cached before their commit",
        (
            Edit(
                BatchWriter.commit,
                {"committing = True": "committing = True; self._cache(batch)"},
            ),
        ),
    ),
    Mutation(
        "a write does not check that the stored data is unchanged",
        (
            Edit(
                MemoryTransaction._check,
                {
                    "if (0 if current is None else current.revision) != before.revision:": (
                        "if False:"
                    ),
                    "current is None or current.apps == before.apps,": "True,",
                    "or (entry.user_id, entry.sequence) in tables.sequences": "",
                },
            ),
        ),
        seed=1,
    ),
    Mutation(
        "a key can be stored twice",
        (
            Edit(
                MemoryTransaction._check,
                {
                    "(entry.key and (entry.user_id, entry.app_id, entry.key) in tables.keys)": (
                        "False"
                    )
                },
            ),
        ),
    ),
    Mutation(
        "a command does not see the previous one in its batch",
        (
            Edit(
                batch.plan,
                {
                    "account = result.accounts.get(command.user_id) or accounts": (
                        "account = accounts"
                    )
                },
            ),
        ),
    ),
    Mutation(
        "a key replays a different request",
        (Edit(differences, {"call = type(command)": "return ()"}),),
        seed=2,
    ),
    Mutation(
        "part of an atomic batch takes effect",
        (Edit(batch._aborted, {"if first is None:": "if True:"}),),
        seed=1,
    ),
    Mutation(
        "the totals of apps only grow",
        (Edit(BatchWriter._changes, {"if delta}": "if delta > 0}"}),),
    ),
    Mutation(
        "a purchase is not recorded",
        (Edit(Plan.add, {"if accepted.purchase is not None:": "if False:"}),),
        seed=1,
    ),
    Mutation(
        "a refund is not recorded in its purchase",
        (Edit(BatchWriter._changes, {"list(batch.refunded.values())": "[]"}),),
        seed=17,
    ),
    Mutation(
        "a transfer takes credits and adds none",
        (Edit(Plan.add, {"in accepted.accounts:": "in accepted.accounts[:1]:"}),),
        seed=1,
    ),
    Mutation(
        "the end of a grant is written repeatedly",
        (Edit(expire, {"app.reduce(grant, grant.left)": "pass"}),),
    ),
    Mutation(
        "the end of a hold returns its credits twice",
        (
            Edit(
                end_hold,
                {
                    "given = app.give_back(parts, at=effective_at, created_by=hold.created_by)": (
                        "app.give_back(parts, at=effective_at, created_by=hold.created_by); "
                        "given = app.give_back("
                        "parts, at=effective_at, created_by=hold.created_by)"
                    )
                },
            ),
        ),
        seed=1,
    ),
    Mutation(
        "a refund goes to grants that did not pay",
        (
            Edit(
                refund,
                {
                    "_, unpaid = split(parts_of(used.details.allocations, used.credits), before)": (
                        "unpaid = parts_of((), reversible)"
                    )
                },
            ),
        ),
        seed=17,
    ),
    Mutation(
        "credits are refunded twice",
        (Edit(reversed_before, {"0 if latest is None else": "0 if True else"}),),
        seed=6,
    ),
    Mutation(
        "a capture takes more than its hold has",
        (
            Edit(
                capture_hold,
                {"if excess and not command.allow_excess:": "if False:"},
            ),
        ),
        seed=100,
    ),
    Mutation(
        "a cap does not count held credits",
        (Edit(cap_exceeded, {"status.spent + status.held + required": "status.spent + required"}),),
        seed=18,
    ),
    Mutation(
        "a balance falls below zero",
        (Edit(transfer, {"if app.available < command.credits:": "if False:"}),),
        seed=2,
    ),
    Mutation(
        "a balance exceeds its greatest value",
        (Edit(no_room, {"if total + credits_ > UINT32_MAX:": "if False:"}),),
        seed=1,
    ),
    Mutation(
        "a report is bought twice",
        (Edit(use, {"lookup.owned_purchase is not None": "False"}),),
        seed=7,
    ),
    Mutation(
        "an event of an alert is lost",
        (Edit(BatchWriter._changes, {"events=batch.events": "events=batch.events[1:]"}),),
    ),
    Mutation(
        "an alert has an event for each change below its limit",
        (
            Edit(
                crossings, {"before = max(0, first.balance_after - first.effect)": "before = 2**32"}
            ),
        ),
    ),
    Mutation(
        "alerts of users are ignored",
        (Edit(with_events, {"if app.alerts": "if False"}),),
    ),
    Mutation(
        "a removed alert stays",
        (Edit(changed_alerts, {"for each in alerts if each != alert": "for each in alerts"}),),
        seed=15,
    ),
    Mutation(
        "alerts that are crossed together share an event",
        (Edit(event_id, {" {alert.credits} {alert.direction.value}": ""}),),
        seed=1,
    ),
    Mutation(
        "a changed policy is never applied",
        (Edit(PolicyCache.__init__, {"+ _KEPT_SECONDS": "+ 3600.0"}),),
        seed=41,
    ),
    Mutation(
        "a policy is kept before the batch that read it is committed",
        (
            Edit(
                PolicyCache.read,
                {"stored |= read": "stored |= read; self._kept.update(read)"},
            ),
        ),
        seed=4,
    ),
    Mutation(
        "a change of a policy overwrites another one",
        (
            Edit(
                MemoryStore.set_policy, {"if stored.revision != changed.revision - 1:": "if False:"}
            ),
        ),
        seed=10,
    ),
    Mutation(
        "a change of a policy is compared with an old one",
        (
            Edit(
                PolicyChanges._attempt,
                {"self._store.latest_policy(request.app_id)": "self._store.policy(request.app_id)"},
            ),
        ),
        seed=35,
    ),
    Mutation(
        "an event of an alert is ordered twice",
        (
            Edit(
                MemoryAlertEvents.order,
                {
                    "self._ordered.append(": "self._ordered.extend(2 * (",
                    "self._unordered.pop(event.id)))": "self._unordered.pop(event.id)),))",
                },
            ),
        ),
    ),
    Mutation(
        "a read does not wait for the revision that it requires",
        (
            Edit(Reads.at_revision, {"account.revision >= required": "True"}),
            Edit(Reads.reached, {"if account.revision < required:": "if False:"}),
        ),
        seed=16,
    ),
    Mutation(
        "a list is older than the revision that it requires",
        (
            Edit(
                Reads.required,
                {
                    "return (await self.reached(call, request)).revision": (
                        "return 0 * (await self.reached(call, request)).revision"
                    )
                },
            ),
        ),
        seed=7,
    ),
    Mutation(
        "a page of a history is older than the page before it",
        (
            Edit(
                history_service._continued,
                {"max(query.stored_sequence, last)": "query.stored_sequence"},
            ),
        ),
        seed=4,
    ),
    Mutation(
        "a watch of a user skips an entry when it catches up",
        (
            Edit(
                UserSource.catch_up,
                {"max(self._last, self._sent),": "max(self._last, self._sent) + 1,"},
            ),
        ),
    ),
    Mutation(
        "a watch of a user returns an entry twice",
        (
            Edit(
                UserSource.accept,
                {"shared.row.sequence <= self._last": "shared.row.sequence < self._last"},
            ),
        ),
        seed=21,
    ),
    Mutation(
        "a watch of an app skips entries committed while it was interrupted",
        (Edit(AppSource.catch_up, {"while True:": "while False:"}),),
    ),
    Mutation(
        "a watch of an app returns an entry twice",
        (Edit(AppSource.accept, {"token <= self._last": "False"}),),
        seed=78,
    ),
    Mutation(
        "a hash does not cover the previous entry",
        (Edit(Draft.record, {"self._heads.get(app.app_id, self._genesis)": "self._genesis"}),),
    ),
    Mutation(
        "an event gets no delivery to a webhook",
        (Edit(MemoryAlertEvents.order, {"self._webhooks.enqueue(found)": "pass"}),),
    ),
    Mutation(
        "an event is not sent to a webhook again after a failure",
        (
            Edit(
                Dispatcher._attempt,
                {
                    "self._webhooks.failed(delivery, error=why, due_at=due_at, now=now)": (
                        "self._webhooks.delivered(delivery)"
                    )
                },
            ),
        ),
        seed=14,
    ),
    Mutation(
        "an event that is sent to a webhook again has another id",
        (
            Edit(
                Dispatcher._attempt,
                {
                    "self._sender.send(delivery.event, webhook)": (
                        "self._sender.send(__import__('dataclasses').replace("
                        "delivery.event, id=f'{delivery.event.id}-{delivery.attempts}'"
                        ") if delivery.attempts > 1 else delivery.event, webhook)"
                    )
                },
            ),
        ),
        seed=14,
    ),
    Mutation(
        "a page of a query skips an entry",
        (
            Edit(
                history_service._continued,
                {"after_sequence=last)": "after_sequence=last + 1)"},
            ),
        ),
        seed=16,
    ),
    Mutation(
        "a summary leaves out an entry",
        (Edit(summary_of, {"scanned[: SUMMARIZED_MAX + 1]": "scanned[1:]"}),),
        seed=3,
    ),
    Mutation(
        "an earlier balance is that of the wrong entry",
        (
            Edit(
                HistoryService._get_balance_at,
                {"end = 1 + min(": "end = min("},
            ),
        ),
        seed=7,
    ),
    Mutation(
        "a text id gets two numbers",
        (
            Edit(
                MemoryStore.add_user,
                {"if name not in users:": "if True:"},
            ),
        ),
        seed=1,
    ),
    Mutation(
        "a server uses its own clock when it is wrong",
        (Edit(Clock.now, {"if abs(skew) > self._skew_seconds_max:": "if False:"}),),
        seed=1,
    ),
    Mutation(
        "the outcomes of a stream are matched with its writes by their order",
        (
            Edit(
                WriteStream._settle,
                {"response.correlation_id, None": "min(self._sent, default=0), None"},
            ),
        ),
    ),
    Mutation(
        "a retry has another key",
        (
            Edit(
                Caller._answer,
                {
                    "await self._failed(call, failure)": (
                        "await self._failed(call, failure)\n"
                        "            if hasattr(request, 'idempotency_key'):"
                        " request.idempotency_key += 'x'"
                    )
                },
            ),
        ),
    ),
    Mutation(
        "a write whose answer was lost is reported as no change",
        (Edit(outcome_of_status, {"return Outcome.UNKNOWN": "return Outcome.NO_CHANGE"}),),
        seed=3,
    ),
    Mutation(
        "an earlier attempt with an unknown outcome is ignored",
        (
            Edit(
                WriteEffect.begin_attempt,
                {"self.earlier_unknown |= self.outcome is Outcome.UNKNOWN": "pass"},
            ),
        ),
        seed=16,
    ),
)
"""The bugs. Some seed finds each of them."""
