"""whet makes large language models smaller and faster, and proves what that cost.

    import whet
    result = whet.compress("demo", recipe="int4", out="demo-int4")
    print(whet.load(result.path).generate_text("Once"))

Importing whet also lets `transformers` load folders that whet has written.
"""

import whet.measure  # these two first: a package that is imported later
import whet.search  # noqa: F401 - takes the place of its function
from whet.api import compress as compress
from whet.api import explain as explain
from whet.api import load as load
from whet.api import measure as measure
from whet.api import preview as preview
from whet.api import search as search
from whet.store.hook import install as _install
from whet.version import __version__ as __version__

__all__ = ["__version__", "compress", "explain", "load", "measure", "preview", "search"]

_install()
