"""What `latentclr doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, BAD = "ok", "warn", "BAD"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        status: `ok`; `warn` for what may be meant so; `BAD` for what is broken.
        subject: What it is about.
        text: What was found, and what to do about it.
    """

    status: str
    subject: str
    text: str
