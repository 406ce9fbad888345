"""A finding: what one check found, how bad it is, and what to do about it."""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """How bad it is; the values are what is shown."""

    OK = "ok"
    WARNING = "warning"
    FAILS = "fails"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: What was looked at, in a word or two.
        verdict: OK, or a WARNING that a server can live with, or it FAILS.
        found: What was found, in a clause or a sentence.
        remedy: What to do; empty when there is nothing to do.
    """

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """Make a finding of something that is as it should be."""
    return Finding(check=check, verdict=Verdict.OK, found=found)


def warning(check: str, found: str, remedy: str) -> Finding:
    """Make a finding of something that a server can live with, for a while or at a risk."""
    return Finding(check=check, verdict=Verdict.WARNING, found=found, remedy=remedy)


def fails(check: str, found: str, remedy: str) -> Finding:
    """Make a finding of something that keeps a server from serving, or credits from being safe."""
    return Finding(check=check, verdict=Verdict.FAILS, found=found, remedy=remedy)
