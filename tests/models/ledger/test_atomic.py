"""Test which command aborts an atomic batch."""

import pytest
from credit_models.ledger import Decided, aborting

ACCEPTED = Decided(refused=False, replayed=False, dry_run=False)
REPLAYED = ACCEPTED._replace(replayed=True)
REFUSED = ACCEPTED._replace(refused=True)
DRY_ACCEPTED = ACCEPTED._replace(dry_run=True)
DRY_REPLAYED = REPLAYED._replace(dry_run=True)
DRY_REFUSED = REFUSED._replace(dry_run=True)


@pytest.mark.parametrize(
    ("batch", "index"),
    [
        ([], None),
        ([ACCEPTED, DRY_ACCEPTED, REPLAYED], None),
        ([ACCEPTED, REFUSED, REFUSED], 1),
        ([ACCEPTED, DRY_REFUSED], 1),
        # A batch that took effect earlier, and a batch of which only a part took effect.
        ([DRY_REFUSED, REPLAYED, REPLAYED], None),
        ([DRY_REFUSED, REPLAYED, ACCEPTED], 0),
        ([REPLAYED, REFUSED], 1),
        # A batch without writes cannot have taken effect.
        ([DRY_REPLAYED, DRY_REFUSED], 1),
        ([DRY_REPLAYED], None),
    ],
)
def test_the_first_refused_command_aborts_a_batch_that_did_not_take_effect(
    batch: list[Decided], index: int | None
) -> None:
    assert aborting(batch) == index
