"""A draft as an outer choice: what a smaller model's guesses are worth, and what they take.

A step of the large model then reads its own last token and the guesses, and gives one token and those
of them that are right (`whet.runtime.speculate`). Quality does not change, so that what a draft
takes of the time, the size and the memory is all that speaks against it.
"""

from dataclasses import replace
from pathlib import Path

from whet.measure import apart
from whet.recipe.recipe import Step
from whet.search.ask import Ask
from whet.search.build import pace
from whet.search.limits import Limits
from whet.search.predict import Guide, Predictor
from whet.search.stand import Stand, recosted
from whet.store.folder import Folder


def worth(ask: Ask, draft: Path, known: Predictor) -> Guide:
    """Return what a draft is worth, timed in fresh processes: its speed alone, and its guesses."""
    alone = pace(draft, Limits(prompt=ask.limits.prompt, context=ask.limits.context))
    facts = apart.guided(ask.folder.path, draft, ask.calibration.source).facts
    return Guide(
        tokens=facts["tokens_a_step"].value,
        guesses=facts["guesses_a_step"].value,
        seconds=1 / alone["decode"],
        first=alone["ttft"],
        memory=max(0, round(alone["memory"]) - known.rest.memory),
    )


def guided(stand: Stand, ask: Ask, draft: Folder, steps: tuple[Step, ...], name: str) -> Stand:
    """Return a shape with a draft: decoding costs what its steps cost, for each token that they give."""
    assert stand.predictor is not None, "drafts are offered where speed is known"
    predictor = replace(stand.predictor, guide=worth(ask, draft.path, stand.predictor))
    return replace(
        recosted(stand, predictor, ask.limits.prompt),
        fixed=stand.fixed + draft.nbytes,
        draft=steps,
        drafted=draft.path,
        name=name,
    )
