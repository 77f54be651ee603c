"""Every method of the registry keeps the public contract. Nothing is thinned out."""

from __future__ import annotations

from anyorder import methods
from anyorder.testing import MethodContract

#: A perturbation must be larger than the distance between neighbouring half-precision numbers.
HALF = {"mezo": {"eps": 0.05}}
#: The contract gives bare parameters, which do not say what they are for.
OPTIONS = {
    "muon": {"roles": "shape", "adjust_lr": "match_rms_adamw"},
    "scale": {"roles": "shape"},
}

for _name in methods.names():
    _members = {
        "method": methods.get(_name),
        "options": OPTIONS.get(_name, {}),
        "half": HALF.get(_name, {}),
    }
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (MethodContract,), _members)
