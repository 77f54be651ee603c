"""A run of a zeroth-order method as a log of seeds and scalars: kilobytes that replay bit for bit.

Methods such as MeZO change the weights only by moves ``weights += scale * z``, where ``z`` is a
pure function of seed, step, index and parameter name. The base weights and the scales are therefore
the whole run. :func:`record` writes them, :func:`replay` repeats them on the base model.
"""

from __future__ import annotations

from anyorder.seed_log.fingerprint import fingerprint
from anyorder.seed_log.format import SeedLog, SeedLogError, read
from anyorder.seed_log.recorder import Recorder, record, resume
from anyorder.seed_log.replay import branch, merge, replay

__all__ = [
    "Recorder",
    "SeedLog",
    "SeedLogError",
    "branch",
    "fingerprint",
    "merge",
    "read",
    "record",
    "replay",
    "resume",
]
