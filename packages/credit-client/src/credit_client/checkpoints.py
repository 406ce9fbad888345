"""The calls about checkpoints, which show whether the history of a user was changed."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from credit_models import GetCheckpointResponse, SignedCheckpoint
from credit_models.checkpoint import CheckpointInvalid, Leaf

from credit_client.call import Caller
from credit_client.checkpoint import Checkpoint, load_key, proven
from credit_client.errors import CheckpointRejected
from credit_client.methods import CHECKPOINT, CHECKPOINTS
from credit_client.request import Values

# An operator signs a checkpoint each day, so the newest one is not this old.
_AGE_MAX = timedelta(days=2)


class Checkpoints(ABC):
    """Returns the checkpoints that the operator has signed. Needs a server of 0.4.0 or later."""

    @property
    @abstractmethod
    def _open_caller(self) -> Caller:
        """What makes the calls of the open client."""

    async def checkpoint(
        self,
        *,
        app_id: int,
        key: str | Path,
        user_id: int | str | None = None,
        at: datetime | None = None,
        not_before: datetime | None = None,
        timeout_seconds: float | None = None,
    ) -> Checkpoint:
        """Return a checkpoint of an app with the head of a user, after checking both.

            checkpoint = await credits.checkpoint(app_id=1, user_id=7, key="checkpoint.pub")
            async for transaction in credits.transactions(user_id=7, verify=checkpoint):
                ...

        The server is not trusted: the signature is checked with the operator's key, and the head
        with the signed root. Needs `credit-client[verify]`.

        The proof is about a number. If `user_id` is a text, the server chooses the number, and a
        server that is not honest can choose that of another or a new user. Pass the number that you
        have stored, such as the `user_id` of an earlier transaction.

        Args:
            app_id: The app.
            key: The file with the operator's public key: Ed25519, in PEM. Do not take it from the
                server.
            user_id: The user whose history is to be compared with the checkpoint; None: no user.
                The server has the heads of users for the latest 7 checkpoints of an app.
            at: The newest checkpoint of this time or earlier is returned; None: the newest one.
            not_before: Reject a checkpoint of an earlier time, with a time zone. None: 2 days
                before `at`. A server that returns an old checkpoint hides changes of later
                transactions.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            CheckpointRejected: The server has no such checkpoint, or it is too old, later than
                `at` or of another app, or its signature or the proof is not valid.
            ImportError: The extra is not installed.
            OSError: The key cannot be read.
            ValueError: `not_before` has no time zone.
        """
        if not_before is not None and not_before.tzinfo is None:
            raise ValueError(f"not_before needs a time zone: {not_before.isoformat()} has none")
        public_key = await asyncio.to_thread(load_key, key)
        values: Values = {"app_id": app_id, "user_id": user_id, "time": at}
        number, left = await self._open_caller.user_number(CHECKPOINT, values, timeout_seconds)
        answer, _ = await self._open_caller.unary(
            CHECKPOINT, {**values, "user_id": number}, timeout_seconds=left
        )
        reply: GetCheckpointResponse = answer.reply
        if reply.checkpoint is None:
            raise CheckpointRejected(
                f"the server has no checkpoint of app {app_id} for this request: ask the operator"
                " whether credit-server checkpoint runs"
            )
        leaves = [
            Leaf(user_id=each.user_id, head=each.hash, index=each.index, path=each.path)
            for each in reply.leaves
        ]
        try:
            checkpoint = proven(reply.checkpoint.note, public_key, number, leaves)
        except CheckpointInvalid as error:
            raise CheckpointRejected(f"the checkpoint of the server: {error}") from error
        if checkpoint.app_id != app_id:
            raise CheckpointRejected(
                f"the server returned a checkpoint of app {checkpoint.app_id}, not of app {app_id}"
            )
        if at is not None and checkpoint.time > at:
            raise CheckpointRejected(
                f"the server returned the checkpoint of {checkpoint.time:%Y-%m-%d %H:%M} UTC, which"
                " is later than the requested time"
            )
        _check_age(checkpoint, not_before or (at or datetime.now(UTC)) - _AGE_MAX)
        return checkpoint

    async def checkpoints(
        self, *, app_id: int, timeout_seconds: float | None = None
    ) -> Sequence[SignedCheckpoint]:
        """Return the latest 400 checkpoints of an app, the newest first, without a check.

        Args:
            app_id: The app.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        answer, _ = await self._open_caller.unary(
            CHECKPOINTS, {"app_id": app_id}, timeout_seconds=timeout_seconds
        )
        return answer.reply.checkpoints


def _check_age(checkpoint: Checkpoint, not_before: datetime) -> None:
    if checkpoint.time < not_before:
        raise CheckpointRejected(
            f"the checkpoint of {checkpoint.time:%Y-%m-%d %H:%M} UTC is too old: it does not cover"
            f" later transactions. Ask the operator for one of {not_before:%Y-%m-%d %H:%M %Z} or"
            " later, or accept it with not_before"
        )
