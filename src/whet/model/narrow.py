"""When transformers is imported: what lets it build feed-forward layers of different widths. Torch-free."""

import importlib.util

BUILDS = "transformers.modeling_utils"  # what `narrow` follows


def narrow() -> None:
    """Let transformers, which is imported, build models as `whet_ffn` of their config tells."""
    if importlib.util.find_spec("torch") is not None:
        from whet.model import narrowed

        narrowed.install()
