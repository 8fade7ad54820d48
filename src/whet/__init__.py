"""whet makes large language models smaller and faster, and proves what that cost."""

from whet.version import __version__ as __version__
