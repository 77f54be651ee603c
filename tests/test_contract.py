"""Every method of the registry keeps the public contract. Nothing is thinned out."""

from __future__ import annotations

from anyorder import methods
from anyorder.testing import MethodContract

for _name in methods.names():
    _class = type(f"Test_{_name}", (MethodContract,), {"method": methods.get(_name)})
    globals()[_class.__name__] = _class
del _class
