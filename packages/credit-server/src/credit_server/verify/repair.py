"""Correct the findings of a verification: first users, then what follows from their accounts."""

from collections.abc import Iterator

from credit_server.store.repairing import Repairing
from credit_server.verify.correction import Correction, Order, State, advice, names, state_of
from credit_server.verify.findings import Code
from credit_server.verify.span_check import Found
from credit_server.verify.user_repair import repair_user

# What is corrected here, of the findings that concern no user.
_CORRECTED = (Code.APP_TOTAL, Code.DIRECTORY_COUNTER)


def repairs(reader: Repairing, found: Found, order: Order) -> Iterator[Correction]:
    """Correct the findings of a verification, the users first: totals follow from them.

    Raises:
        StoreError: The store cannot be reached, or rejects a command that concerns no user.
    """
    users: dict[int, set[Code]] = {}
    for code, places in found.places.items():
        for user_id, _ in places:
            users.setdefault(user_id, set()).add(code)
    others = users.pop(0, set())
    moved: set[int] = set()
    doubtful: set[int] = set()
    for user_id in sorted(users):
        result = repair_user(reader, user_id, order, users[user_id])
        yield from result.corrections
        moved |= result.moved_apps
        doubtful |= result.doubtful_apps
    wrong = {app_id for _, app_id in found.places.get(Code.APP_TOTAL, ())}
    yield from repair_totals(reader, wrong | moved, order, moved=moved, doubtful=doubtful)
    if Code.DIRECTORY_COUNTER in others and (correction := repair_directory(reader, order)):
        yield correction
    for code in Code:
        if code in others and code not in _CORRECTED:
            yield Correction(state=State.REFUSED, findings=names({code}), actions=[advice({code})])


def repair_totals(
    reader: Repairing, app_ids: set[int], order: Order, *, moved: set[int], doubtful: set[int]
) -> list[Correction]:
    """Make the totals of some apps the sums of their balances, in one transaction.

    Writes of servers change both by the same credits, so the difference is not theirs.

    Args:
        reader: The database.
        app_ids: The apps.
        order: What the operator asked for.
        moved: The apps in which users were corrected so that the sum of the balances moves. Before
            these corrections are written, the difference is not known.
        doubtful: The apps in which a user could not be corrected, so that the sum is not known to
            be right. Their totals are refused.

    Raises:
        StoreError: The store cannot be reached, or rejects a command. No total was changed.
    """
    if not app_ids:
        return []
    found = names({Code.APP_TOTAL})

    def run() -> list[Correction]:
        totals, held = reader.totals()
        corrections = []
        for app_id in sorted(app_ids):
            difference = held.get(app_id, 0) - totals.get(app_id, 0)
            is_planned = app_id in moved and not order.apply
            if not difference and not is_planned:
                continue
            state = state_of(order)
            action = f"add {difference} to the total of the app"
            if app_id in doubtful:
                state = State.REFUSED
                action = (
                    "a user of the app cannot be corrected, so the sum of its balances may be"
                    " wrong; nothing is written"
                )
            elif is_planned:
                action = "make the total of the app the sum of its balances after the corrections"
            else:
                reader.add_to_total(app_id, difference)
            corrections.append(
                Correction(app_id=app_id, state=state, findings=found, actions=[action])
            )
        return corrections

    return reader.transaction(run, commit=order.apply)


def repair_directory(reader: Repairing, order: Order) -> Correction | None:
    """Raise the counter of user ids to the greatest id that was given."""

    def run() -> Correction | None:
        greatest, last = reader.directory_end()
        if greatest <= last:
            return None
        reader.set_directory_counter(greatest)
        return Correction(
            state=state_of(order),
            findings=names({Code.DIRECTORY_COUNTER}),
            actions=[f"set the last given user id to {greatest}"],
        )

    return reader.transaction(run, commit=order.apply)
