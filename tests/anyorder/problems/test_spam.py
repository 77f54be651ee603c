"""The problem ``spam`` on its published data."""

from __future__ import annotations

from published import Published

from anyorder.problems.spam import Spam


class TestSpam(Published):
    kind = Spam
    rows = (3274, 800, 1500)
    width = 1024
    parameters = 2050
    lr = 3e-2
    reaches = 0.8
    folder = "sms_spam"
