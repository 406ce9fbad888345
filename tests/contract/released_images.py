"""The images of all releases, and of today's contract.

Retired releases are included: `contracts/CHANGELOG.md` has the reason for each, and their bytes are
still sent and stored. A release whose wire format is retired must be excluded here.
"""

import betterproto2
import credit_models
import pytest
from contract_check.image import Image
from contract_check.released import baselines, retired
from credit_models.image import FILE_DESCRIPTOR_SET

from tests.contract.conftest import ROOT

PACKAGE = "credit.v1"
TODAY = Image(FILE_DESCRIPTOR_SET.SerializeToString())
RELEASED = {
    str(release.version): Image(release.path.read_bytes())
    for release in (*retired(ROOT / "contracts"), *baselines(ROOT / "contracts"))
}
EVERY_RELEASE = [pytest.param(image, id=version) for version, image in RELEASED.items()]


def message_names(image: Image) -> list[str]:
    """Return the full names of the messages that are sent, without the options."""
    return [name for name in image.messages if name.startswith(f"{PACKAGE}.")]


def model(full_name: str) -> type[betterproto2.Message]:
    """Return today's class for a message."""
    found: type[betterproto2.Message] = getattr(credit_models, full_name.rpartition(".")[2])
    return found
