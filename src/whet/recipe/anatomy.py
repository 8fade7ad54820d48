"""What a plan needs to know of a model, whichever code runs it: its sites, and what is left alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from whet.base.errors import FolderError, UnsupportedError
from whet.model.account import Account, account
from whet.model.config import whole
from whet.model.family import Family, find
from whet.model.site import Site
from whet.store.folder import Folder

FOREIGN = "foreign"
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
SAME = "Are config.json and the weights of the same model?"
LONGEST = 512  # window for models that do not say how far they can read [token]


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A model's linear weights and sizes.

    `family` is the name of a family of ours, or "foreign" for a model that runs by the code of
    transformers and is compressed linear by linear.
    """

    family: str
    sites: tuple[Site, ...]
    skipped: Mapping[str, str]  # module -> reason
    context: int  # [token]
    vocab: int
    hidden: int
    account: Account  # what becomes of each tensor of the folder

    @property
    def tensors(self) -> frozenset[str]:
        """Return the tensors of the folder that its copy has too."""
        return frozenset({*self.account.used, *self.account.copied})

    @property
    def layers(self) -> int:
        """Return the number of blocks."""
        return 1 + max((site.layer for site in self.sites if site.layer is not None), default=-1)


def anatomy(folder: Folder, *, bare: bool = False) -> Anatomy:
    """Return what a folder holds; a family of ours if there is one, else transformers' own code.

    With `bare`, a model that has no family is not loaded: its linears do not matter.
    """
    try:
        family = find(folder.config)
    except UnsupportedError as error:
        return _bare(folder) if bare else _foreign(folder, error)
    return _decoder(folder, family)


def _decoder(folder: Folder, family: Family) -> Anatomy:
    arch = family.architecture(folder.config, folder.tensors)
    _check_tensors(folder, family.tensors(arch))
    found = account(family, arch, folder.config, folder.tensors)
    _check_depth(folder, found, arch.layers)
    return Anatomy(
        family.name,
        family.sites(arch),
        family.skipped(arch),
        arch.context,
        arch.vocab,
        arch.hidden,
        found,
    )


def _bare(folder: Folder) -> Anatomy:
    """Return what the configuration alone says of a model that has no family."""
    config = folder.config
    inner = config.get("text_config")
    config = inner if isinstance(inner, dict) else config
    context = whole(config, "max_position_embeddings", "n_positions", default=LONGEST)
    hidden = whole(config, "hidden_size", "d_model", "n_embd", default=1)
    vocab = whole(config, "vocab_size")
    return Anatomy(FOREIGN, (), {}, context, vocab, hidden, Account(frozenset(folder.tensors)))


def _foreign(folder: Folder, unknown: UnsupportedError) -> Anatomy:
    """Ask transformers for the linears of a model; if it does not know it either, say so."""
    if folder.stored_as:
        raise UnsupportedError(
            f"{unknown.message}; by the code of transformers whet takes plain numbers only, and "
            f"{folder.path} is stored as {folder.stored_as}",
            "Make it plain first: whet compress MODEL --recipe plain, and compress that folder.",
        ) from unknown
    from whet.model.foreign import Foreign

    try:
        model = Foreign(folder.path)
    except UnsupportedError as error:
        raise UnsupportedError(f"{unknown.message}; and {error.message}", error.hint) from error
    missing = next((s.tensor for s in model.sites if s.tensor not in folder.tensors), None)
    if missing is not None:
        raise UnsupportedError(
            f"{folder.path} stores {missing} under another name than transformers gives it",
            "Save it once with transformers (save_pretrained), and compress that folder.",
        )
    config = folder.config
    context = whole(config, "max_position_embeddings", "n_positions", default=LONGEST)
    widest = max((site.shape[1] for site in model.sites), default=1)
    hidden = whole(config, "hidden_size", "d_model", default=widest)
    used = Account(frozenset(folder.tensors))
    return Anatomy(FOREIGN, model.sites, model.skipped, context, model.vocab, hidden, used)


def _check_tensors(folder: Folder, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Compare what the configuration promises with what the shards hold."""
    for name, shape in expected.items():
        stored = folder.tensors.get(name)
        if stored is None:
            raise FolderError(
                f"{folder.path} has no tensor {name}, which its config.json calls for",
                "Are config.json and the weights of the same model, and all shards there?",
            )
        if stored.info.shape != shape:
            raise FolderError(
                f"{folder.path / stored.file}: {name} has shape {list(stored.info.shape)}, "
                f"config.json calls for {list(shape)}",
                SAME,
            )
        if stored.info.dtype not in FLOATS:
            raise FolderError(
                f"{folder.path / stored.file}: {name} is stored as {stored.info.dtype}, "
                f"expected one of {', '.join(sorted(FLOATS))}",
                "Was the model compressed by something that config.json does not tell of?",
            )


def _check_depth(folder: Folder, found: Account, layers: int) -> None:
    """Refuse blocks beyond the last one that nothing tells of: the model would not be what it was."""
    if found.deeper:
        more = f" and {len(found.deeper) - 1} more" if len(found.deeper) > 1 else ""
        raise FolderError(
            f"{folder.path} holds {found.deeper[0]}{more}, beyond the {layers} blocks of its "
            "config.json (num_hidden_layers)",
            "If these blocks belong to the model, correct num_hidden_layers; if they predict further "
            "tokens, say how many there are as num_nextn_predict_layers.",
        )
