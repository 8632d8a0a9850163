"""From numbers to words: imputation helps these data, is useless, or is harmful.

The rule, whose every threshold is the 99 % point of a null:

1. A gain or loss on held-out data counts if it is beyond 2.33 standard errors (one-sided 99 %, cells being independent)
   *and* beyond what a better estimate of the gene means alone could bring (`Gain.attainable`).
2. Values that foretell exactly what the counts as they are do are *useless*: nothing was changed.
3. *Harmful* is what foretells held-out data worse than the counts as they are do; or worse than the cell's own counts
   do once shrunk, without knowing anything that they do not (a mixture of the two is no better than the own counts),
   unless it is better than the counts as they are and invents no signals (then it is *useless*); or worse than the
   mean of each gene does, with signals invented where there are none.
4. What foretells them better than the mean of each gene does, but no better than the cell's own counts once shrunk,
   alone or mixed with them, has nothing from other cells or genes: *harmful* if signals are invented, else *useless*.
5. *Helps* is what foretells them better than the mean of each gene does, and is none of the above.
6. All else is *useless*: no harm, and nothing that the mean of each gene does not say.

Measures of harm that are beyond their null say what helpful values should not be used for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..metrics.gain import Gain

__all__ = ["RULE", "Verdict", "Word", "judge"]

Word = Literal["helps", "useless", "harmful"]

STANDARD_ERRORS = 2.326  # one-sided 99 % point of the normal distribution

# What a measure of harm beyond its null forbids, and why.
CAUTIONS: Mapping[str, str] = {
    "permuted": "Do not use it for gene-gene correlations or networks: in permuted data, in which no genes correlate, "
    "imputed ones do.",
    "halves": "Do not use it for differential expression: genes are called together between random halves of a type.",
    "markers": "Do not use it to find markers of types: genes permuted across cells become markers once imputed.",
    "silent": "Do not use it to say that a gene is expressed in a type: genes that are silent in a type are lifted off "
    "zero.",
    "correlations": "Correlations are stronger than the counts, freed of noise, say: do not compare their size.",
    "neighbours": "Neighbouring cells are more alike than the counts, freed of noise, say: do not use it for gradients "
    "or variability within a type.",
    "rare": "Do not use it to look for rare types: they are pulled towards the crowd.",
}
# For a reader of a report; docs/trust.md says more.
RULE = (
    "Harmful is what foretells held-out data worse than the counts as they are do; or worse than the cell's own counts "
    "do once shrunk, if a mixture of the two is no better than these alone and signals are invented or the counts as "
    "they are not bettered; or, where signals are invented, worse than the mean of each gene does, or better than it "
    "but with nothing that the cell's own counts do not say. Helps is "
    "what foretells them better than the mean of each gene does, knows something that the cell's own counts do not, "
    "and is none of the above. All else is useless.\n\n"
    "Better and worse mean a difference beyond 2.33 standard errors across cells (one-sided 99 %) and beyond what a "
    "better estimate of the gene means alone could bring, which needs no structure. Each measure of harm is compared "
    "with the 99 % point of its own null: further permutations, halves before imputation, or the molecules split anew. "
    "Three numbers were chosen: what counts as silent (5 % of the level elsewhere), and how reliable genes have to be "
    "to be compared (0.3 and 0.1). docs/trust.md of the package has each null, its source and its limits."
)
_INVENTED = ("permuted", "halves", "markers", "silent")
_UNCHANGED = 1e-5  # relative: what rounding to float32 changes at most
_STARTS: Mapping[str, str] = {
    "helps": "Imputation helps",
    "useless": "Imputation is useless here",
    "harmful": "Imputation is harmful here",
}
_SIMPLER: Mapping[str, str] = {
    "gene_mean": "the mean of each gene",
    "none": "the counts as they are",
    "own_counts": "each cell's own counts, and nothing is known that they do not say",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `judge` returns.

    Attributes
    ----------
    word
        `"helps"`, `"useless"` or `"harmful"`.
    reason
        Why, in a sentence with the numbers.
    cautions
        What not to use imputed values for, by the measure of harm that says so.
    thresholds
        What each gain had to exceed, in either direction, on its own scale.
    """

    word: Word
    reason: str
    cautions: dict[str, str]
    thresholds: dict[str, float]

    def in_words(self) -> str:
        """Return the verdict as an analyst should read it."""
        return " ".join([self.reason, *self.cautions.values()])


def judge(gain: Mapping[str, Gain], *, found: Mapping[str, bool]) -> Verdict:
    """Say whether imputation helps, is useless, or is harmful.

    Parameters
    ----------
    gain
        On held-out data over ``gene_mean`` and, where the data can say it, ``none`` (no imputation), ``own_counts``
        and ``added`` (own counts and imputation together, over own counts); others are ignored. From
        `scautoimpute.metrics.molecule_gain`, or made of any losses per cell by ``Gain.between``.
    found
        For each measure of harm that was taken, whether it is beyond its null, as `Harm.found` gives it.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        If there is no gain over ``gene_mean``.

    Examples
    --------
    >>> verdict = judge({"gene_mean": Gain(mean=3.0, standard_error=0.1, relative=0.2)}, found={"rare": True})
    >>> verdict.word, list(verdict.cautions)
    ('helps', ['rare'])
    """
    if "gene_mean" not in gain:
        msg = f"gain is over {', '.join(gain) or 'nothing'}; the gain over gene_mean is needed"
        raise ValueError(msg)
    compared = {name: gain[name] for name in ("gene_mean", "none", "own_counts", "added") if name in gain}
    thresholds = {name: threshold(of) for name, of in compared.items()}
    sign = {name: _sign(of.mean, thresholds[name]) for name, of in compared.items()}
    word, against = _word(compared, sign, any(found.get(name, False) for name in _INVENTED))
    cautions = {name: text for name, text in CAUTIONS.items() if found.get(name, False)}
    invented = any(name in cautions for name in _INVENTED)
    reason = _reason(word, against, gain[against], sign[against], invented=invented)
    return Verdict(word, reason, cautions, thresholds)


def threshold(gain: Gain) -> float:
    """Return what a gain has to exceed to count: the larger of chance and what needs no structure."""
    return max(STANDARD_ERRORS * gain.standard_error, gain.attainable)


def _sign(value: float, beyond: float) -> int:
    return (value > beyond) - (value < -beyond)


def _word(gain: Mapping[str, Gain], sign: Mapping[str, int], invented: bool) -> tuple[Word, str]:
    """Apply the rule; return the word and what held-out data are compared with to say it."""
    if "none" in gain and abs(gain["none"].relative) < _UNCHANGED:
        return "useless", "none"
    if sign.get("none", 0) < 0:
        return "harmful", "none"
    if sign.get("own_counts", 0) < 0 and sign.get("added", 0) <= 0:
        return ("harmful" if invented or sign.get("none", 0) <= 0 else "useless"), "own_counts"
    if sign["gene_mean"] < 0 and invented:
        return "harmful", "gene_mean"
    if sign["gene_mean"] > 0 and sign.get("own_counts", 1) <= 0 and sign.get("added", 1) <= 0:
        return ("harmful" if invented else "useless"), "own_counts"
    return ("helps" if sign["gene_mean"] > 0 else "useless"), "gene_mean"


def _reason(word: Word, against: str, change: Gain, sign: int, *, invented: bool) -> str:
    percent = abs(100 * change.relative)
    size = f"{percent:,.0f} %" if percent >= 10 else f"{percent:.2g} %"
    said = f"{size} {'better' if sign > 0 else 'worse'}" if sign else "no better"
    told = invented and word == "harmful" and (against == "gene_mean" or (against == "own_counts" and sign == 0))
    also = ", and signals appear where there are none" if told else ""
    advice = "" if word == "helps" else " Use the counts as they are."
    return f"{_STARTS[word]}: held-out data are foretold {said} than by {_SIMPLER[against]}{also}.{advice}"
