"""The calls of `HistoryService` about checkpoints."""

from credit_models import (
    CheckpointLeaf,
    GetCheckpointRequest,
    GetCheckpointResponse,
    ListCheckpointsRequest,
    ListCheckpointsResponse,
    SignedCheckpoint,
)

from credit_server.api.reads import Reads
from credit_server.api.tiles import read_proof
from credit_server.grpc.call import Call
from credit_server.store.checkpoints import (
    CHECKPOINTS_KEPT,
    TREES_KEPT,
    Checkpoints,
    StoredCheckpoint,
    Tile,
    TreeRemoved,
)
from credit_server.store.port import StoreUnavailable


class CheckpointCalls:
    """Returns checkpoints, and their proofs for single users."""

    def __init__(self, checkpoints: Checkpoints, reads: Reads) -> None:
        """Prepare to serve.

        Args:
            checkpoints: The store of checkpoints.
            reads: Checks the requests.
        """
        self._checkpoints = checkpoints
        self._reads = reads

    async def list_checkpoints(
        self, call: Call[ListCheckpointsRequest, ListCheckpointsResponse]
    ) -> None:
        """Return the checkpoints of an app."""
        request = await self._reads.request(call)
        found = await self._checkpoints.newest(request.app_id, CHECKPOINTS_KEPT)
        messages = [_message(each, has_proofs=rank < TREES_KEPT) for rank, each in enumerate(found)]
        await call.send_answer(ListCheckpointsResponse(checkpoints=messages))

    async def get_checkpoint(self, call: Call[GetCheckpointRequest, GetCheckpointResponse]) -> None:
        """Return a checkpoint, and the proof for a user."""
        request = await self._reads.request(call)
        kept = CHECKPOINTS_KEPT if request.user_id is None else TREES_KEPT
        limit = 1 if request.time is None else kept
        for rank, found in enumerate(await self._checkpoints.newest(request.app_id, limit)):
            if request.time is None or found.time <= request.time:
                leaves = await self._proof(found, request.user_id)
                message = _message(found, has_proofs=rank < TREES_KEPT)
                await call.send_answer(GetCheckpointResponse(checkpoint=message, leaves=leaves))
                return
        await call.send_answer(GetCheckpointResponse())

    async def _proof(self, found: StoredCheckpoint, user_id: int | None) -> list[CheckpointLeaf]:
        """Return the proof for a user; empty without a user.

        Raises:
            StoreUnavailable: The tree was removed during the call, because there are newer
                checkpoints.
        """
        if user_id is None:
            return []

        async def read(level: int, index: int) -> Tile:
            return await self._checkpoints.tile(found.app_id, found.time, level, index)

        try:
            near = await self._checkpoints.tile_of_user(found.app_id, found.time, user_id)
            leaves = await read_proof(user_id, found.size, near, read)
        except TreeRemoved as error:
            raise StoreUnavailable(str(error)) from error
        return [
            CheckpointLeaf(
                user_id=leaf.user_id, hash=leaf.head, index=leaf.index, path=[*leaf.path]
            )
            for leaf in leaves
        ]


def _message(found: StoredCheckpoint, *, has_proofs: bool) -> SignedCheckpoint:
    return SignedCheckpoint(time=found.time, note=found.note, has_proofs=has_proofs)
