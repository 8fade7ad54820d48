"""The machine that a search is for: this one, measured, or one that a file describes."""

from whet.base.errors import UnsupportedError
from whet.base.paths import local_path
from whet.formats.keeping import USUAL, Keeping
from whet.kernels.native import missing
from whet.measure import apart
from whet.measure.rest import Rest
from whet.model.family import find
from whet.runtime.engine import load
from whet.search.ask import Ask
from whet.search.latency import latency
from whet.search.predict import Predictor, calibrated, modelled
from whet.search.profile import read
from whet.store.folder import Folder


def predictor_of(ask: Ask, folder: Folder, cache: Keeping = USUAL) -> Predictor | None:
    """Return what predicts speed and memory of models of a folder's shape that keep so.

    None where no kernels are built and no limit needs them; raises UnsupportedError where one does.
    """
    if ask.target is not None:
        family = find(folder.config)
        arch = family.architecture(folder.config, folder.tensors)
        return modelled(family, arch, read(local_path(ask.target)), cache)
    if reason := missing():
        if ask.limits.timed or ask.objective == "speed":
            raise UnsupportedError(
                f"speed and memory cannot be measured: {reason}",
                "Install a C++20 compiler and whet again, or describe a machine with --target.",
            )
        return None
    engine = load(folder.path, "native", cache=cache, draft=False)
    return calibrated(engine, latency(folder.nbytes), timed=apart.rest)


def kernels_of(folder: Folder) -> Predictor | None:
    """Return what says which formats this machine multiplies by, and times nothing; None without kernels."""
    if missing():
        return None
    family = find(folder.config)
    arch = family.architecture(folder.config, folder.tensors)
    return Predictor(family, arch, latency(folder.nbytes), Rest(0.0, 0.0, ((1, 0.0),), 0))
