"""whet makes large language models smaller and faster, and proves what that cost.

    import whet
    result = whet.compress("demo", recipe="int4", out="demo-int4")
    print(whet.load(result.path).generate_text("Once"))

Importing whet also lets `transformers` load folders that whet has written.
"""

from importlib import import_module as _import_module

from whet import api as _api
from whet.api import compress as compress
from whet.api import explain as explain
from whet.api import load as load
from whet.api import preview as preview
from whet.model import narrow as _narrow
from whet.store.hook import install as _install
from whet.version import __version__ as __version__

__all__ = ["__version__", "compress", "explain", "load", "measure", "preview", "search"]

for _package in ("whet.measure", "whet.search"):
    _import_module(_package)  # one that is first imported later would take its function's place
measure, search = _api.measure, _api.search

_install({_narrow.BUILDS: _narrow.narrow})
