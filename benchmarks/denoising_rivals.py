"""The rivals of the denoising benchmark: each from counts to the cells' shares of the genes.

A family fits one kind of model with several settings. Its settings, the share of the gene mean that is mixed in (the
floor, without which one molecule of a gene that was thought absent is infinitely unlikely) and the scale of the
empirical-Bayes dispersions are chosen on a tenth of the training molecules, and the winner is fitted to all of them.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from denoising_choice import Dense, Inner, Prior, choose_floor, choose_prior, mixed, posterior, shares
from denoising_data import SHARE
from scautoimpute import AutoImpute, MissingDependencyError, tl
from scautoimpute.methods import alra, knn, magic, scvi
from scautoimpute.metrics import gene_frequencies

__all__ = ["FAMILIES", "METHODS", "Estimate", "Family", "estimates", "family_of", "unavailable"]

Setting = dict[str, Any]
Profiles = Iterator[tuple[Setting, Dense]]


@dataclass(frozen=True)
class Estimate:
    """What one method says of one data set.

    `own_NG` are its shares as it gives them; `scored_NG` those that likelihoods are taken of, i.e. with the floor;
    `submitted_NG` what it would hand in to Open Problems, the shares at the cell's own total unless it says otherwise.
    """

    method: str
    own_NG: Dense
    scored_NG: Dense
    choice: Setting
    seconds: float
    submitted_NG: NDArray[Any] | None = None


@dataclass(frozen=True)
class Family:
    """Models that are fitted together: `profiles(counts, settings, rng)` yields the profile of each setting.

    `variants` says which methods come of it, and by which of the settings each may choose (None: all); each has a twin
    with the empirical-Bayes step, named `…_eb`, if `with_eb`.
    """

    profiles: Callable[[Any, list[Setting], np.random.Generator], Profiles]
    variants: dict[str, list[Setting] | None]
    settings: list[Setting] = field(default_factory=lambda: [{}])
    with_eb: bool = True

    @property
    def methods(self) -> list[str]:
        """Names of all that come of it."""
        twins = [f"{name}_eb" for name in self.variants] if self.with_eb else []
        return [*self.variants, *twins]


# From counts to profiles --------------------------------------------------------------------------------------------


def none(x: Any, settings: list[Setting], rng: np.random.Generator) -> Profiles:  # noqa: ARG001
    yield settings[0], shares(x, gene_frequencies(x))


def gene_mean(x: Any, settings: list[Setting], rng: np.random.Generator) -> Profiles:  # noqa: ARG001
    yield settings[0], np.tile(gene_frequencies(x).astype(np.float32), (x.shape[0], 1))


def magic_profiles(x: Any, settings: list[Setting], rng: np.random.Generator) -> Profiles:
    """Square roots of counts per 10,000, as its authors do."""
    seed, roots, frequency = int(rng.integers(2**31)), np.sqrt(_per_cell(x, 1e4)), gene_frequencies(x)
    for setting in settings:
        if 3 * setting["knn"] < x.shape[0]:
            yield setting, shares(magic.smooth(roots, seed=seed, **setting) ** 2, frequency)


def alra_profiles(x: Any, settings: list[Setting], rng: np.random.Generator) -> Profiles:
    values = alra.impute(np.log1p(_per_cell(x, 1e4)), rng=rng).values
    yield settings[0], shares(np.expm1(values), gene_frequencies(x))


def pca_profiles(x: Any, settings: list[Setting], rng: np.random.Generator) -> Profiles:
    """Of square roots, or of x / √(library · frequency), whose components estimate the rates without bias."""
    from sklearn.utils.extmath import randomized_svd

    library, frequency = np.maximum(np.asarray(x.sum(axis=1)), 1), gene_frequencies(x)
    seed = int(rng.integers(2**31))
    for curve in dict.fromkeys(setting["curve"] for setting in settings):
        of_curve = [s for s in settings if s["curve"] == curve and s["rank"] < min(x.shape)]
        if curve == "sqrt":
            scaled = np.sqrt(_per_cell(x, float(np.median(library))))
        else:
            scaled = sparse.diags_array(library**-0.5) @ x @ sparse.diags_array(frequency**-0.5)
        rank = max((s["rank"] for s in of_curve), default=1)
        u, singular, v = randomized_svd(scaled.astype(np.float32), rank, n_iter=7, random_state=seed)
        for setting in of_curve:
            low_rank = (u * singular)[:, : setting["rank"]] @ v[: setting["rank"]]
            np.maximum(low_rank, 0, out=low_rank)
            values = low_rank**2 if curve == "sqrt" else low_rank * np.sqrt(frequency).astype(np.float32)
            yield setting, shares(values, frequency)


def knn_profiles(x: Any, settings: list[Setting], rng: np.random.Generator) -> Profiles:
    """Add up the counts of a cell and its k nearest, found among the first components of ln(1 + counts per 10,000)."""
    logs = np.log1p(_per_cell(x, 1e4))
    scores = knn.principal_components(logs, min(max(s["n_pcs"] for s in settings), min(x.shape) - 1), rng)
    for setting in settings:
        if setting["k"] < x.shape[0]:
            weights = knn.cell_weights(scores[:, : setting["n_pcs"]], setting["k"], "uniform")
            yield setting, shares(weights @ x, gene_frequencies(x))


def nmf_profiles(x: Any, settings: list[Setting], rng: np.random.Generator) -> Profiles:
    """Poisson NMF: factors of least Kullback-Leibler divergence, by multiplicative updates."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    seed = int(rng.integers(2**31))
    for setting in settings:
        model = NMF(
            setting["rank"],
            init="nndsvda",
            solver="mu",
            beta_loss="kullback-leibler",
            max_iter=100,
            tol=1e-4,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            weights = model.fit_transform(x.astype(np.float32))
        yield setting, shares(weights @ model.components_, gene_frequencies(x))


def scvi_profiles(x: Any, settings: list[Setting], rng: np.random.Generator) -> Profiles:
    yield settings[0], shares(scvi.impute(x, rng=rng), gene_frequencies(x))


def masked_profiles(x: Any, settings: list[Setting], rng: np.random.Generator) -> Profiles:
    """The masked objective as `tl.autoimpute` runs it: 1000 genes are modelled, the others keep their counts."""
    from anndata import AnnData

    adata = AnnData(sparse.csr_matrix(x, dtype=np.float32))
    tl.autoimpute(adata, objective="masked", scale="counts", keep_observed=False, random_state=rng)
    yield settings[0], shares(adata.layers["imputed"], gene_frequencies(x))


def _per_cell(x: Any, total: float) -> Any:
    """Scale every cell to a total; empty cells stay empty."""
    return sparse.diags_array(total / np.maximum(np.asarray(x.sum(axis=1)), 1)) @ x


# What is not a family -----------------------------------------------------------------------------------------------


def magic_open_problems(train: Any, seed: int) -> Iterator[Estimate]:
    """MAGIC as it leads the Open Problems table: approximate, the root before the library size is divided out."""
    started = time.perf_counter()
    inner = Inner.of(train, _stream(seed, "magic_open_problems"))
    floor, _ = choose_floor(shares(_roots_first(inner.train, seed), inner.frequency_G), inner)
    submitted, frequency = _roots_first(train, seed), gene_frequencies(train)
    own = shares(submitted, frequency)
    scored = mixed(own, frequency, floor)
    seconds = time.perf_counter() - started
    yield Estimate("magic_open_problems", own, scored, {"floor": floor}, seconds, submitted)


def _roots_first(x: Any, seed: int) -> NDArray[Any]:
    library = np.maximum(np.asarray(np.sqrt(x).sum(axis=1)), 1)
    rescaled = (sparse.diags_array(1 / library) @ np.sqrt(x)).toarray()
    operator = magic.load().MAGIC(solver="approximate", random_state=seed, n_jobs=1, verbose=0)
    return np.asarray(operator.fit_transform(rescaled, genes="all_genes")) ** 2 * library[:, None]


def autoimpute_counts(train: Any, seed: int) -> Iterator[Estimate]:
    """The counts objective at its defaults; it chooses everything itself.

    Open Problems is handed what its error is measured against: expected logs at the depth of the held-out molecules.
    """
    from anndata import AnnData

    started = time.perf_counter()
    adata = AnnData(sparse.csr_matrix(train, dtype=np.float32))
    model = AutoImpute("counts", random_state=_stream(seed, "autoimpute_counts"))
    tl.autoimpute(adata, model=model, genes=adata.var_names, scale="counts")
    seconds = time.perf_counter() - started
    library_N, frequency_G = np.maximum(train.sum(axis=1), 1), gene_frequencies(train)
    not_modelled = np.flatnonzero(~adata.var["autoimpute_modelled"])  # without a molecule to train on
    adata.layers["imputed"][:, not_modelled] = library_N[:, None] * frequency_G[not_modelled]
    own = shares(adata.layers["imputed"], frequency_G)
    tl.autoimpute(adata, model=model, scale="expected_log1p", depth=library_N * SHARE / (1 - SHARE))
    submitted = np.expm1(np.asarray(adata.layers["imputed"], dtype=np.float64)) * (library_N[:, None] / 1e4)
    weights = {name: round(weight, 3) for name, weight in model.weights_.items()}
    yield Estimate("autoimpute_counts", own, own, weights, seconds, submitted)


# Choosing and fitting -----------------------------------------------------------------------------------------------


@dataclass
class _Candidate:
    """A setting with what was chosen for it, how likely the held-out molecules are then, and the seconds it took."""

    setting: Setting
    floor: float
    raw: float
    raw_seconds: float
    prior: Prior
    eb: float
    eb_seconds: float


def of_family(family: Family, train: Any, seed: int) -> Iterator[Estimate]:
    """Choose on an inner split, fit to all training molecules, and yield every method of the family."""
    name = next(iter(family.variants))
    inner = Inner.of(train, _stream(seed, name))
    found = list(_candidates(family, inner, _stream(seed, name, 1)))
    fitted: dict[str, tuple[Dense, float]] = {}
    for variant, allowed in family.variants.items():
        of_variant = [c for c in found if allowed is None or c.setting in allowed]
        if not of_variant:
            continue
        best = max(of_variant, key=lambda c: c.raw)
        yield _raw(variant, best, sum(c.raw_seconds for c in of_variant), family, train, seed, fitted)
        if family.with_eb:
            best = max(of_variant, key=lambda c: c.eb)
            yield _with_eb(variant, best, sum(c.eb_seconds for c in of_variant), family, train, seed, fitted)


def _candidates(family: Family, inner: Inner, rng: np.random.Generator) -> Iterator[_Candidate]:
    before = time.perf_counter()
    for setting, profile in family.profiles(inner.train, family.settings, rng):
        floor, raw = choose_floor(profile, inner)
        fitted = time.perf_counter()
        prior, eb = choose_prior(profile, inner, floor=floor) if family.with_eb else (Prior(floor, 0), -np.inf)
        after = time.perf_counter()
        yield _Candidate(setting, floor, raw, fitted - before, prior, eb, after - before)
        before = time.perf_counter()


def _raw(variant: str, best: _Candidate, chosen_in: float, *fit: Any) -> Estimate:
    profile, seconds = _fit(best.setting, *fit)
    started = time.perf_counter()
    scored = mixed(profile, gene_frequencies(fit[1]), best.floor)
    seconds += chosen_in + time.perf_counter() - started
    return Estimate(variant, profile, scored, best.setting | {"floor": best.floor}, seconds)


def _with_eb(variant: str, best: _Candidate, chosen_in: float, *fit: Any) -> Estimate:
    profile, seconds = _fit(best.setting, *fit)
    started = time.perf_counter()
    train = fit[1]
    made = posterior(mixed(profile, gene_frequencies(train), best.prior.floor), train, best.prior.scale)
    seconds += chosen_in + time.perf_counter() - started
    choice = best.setting | {"floor": best.prior.floor, "scale": best.prior.scale}
    return Estimate(f"{variant}_eb", made, made, choice, seconds)


def _fit(setting: Setting, family: Family, train: Any, seed: int, fitted: dict[str, Any]) -> tuple[Dense, float]:
    """Fit a setting to all training molecules, once; two methods may have chosen the same."""
    if str(setting) not in fitted:
        started = time.perf_counter()
        _, profile = next(iter(family.profiles(train, [setting], _stream(seed, next(iter(family.variants)), 2))))
        fitted[str(setting)] = profile, time.perf_counter() - started
    return fitted[str(setting)]


def _stream(seed: int, name: str, number: int = 0) -> np.random.Generator:
    """Return a stream of the method's own: the run's seed already drew which molecules are held out."""
    return np.random.default_rng([seed, number, *name.encode()])


# The list -----------------------------------------------------------------------------------------------------------


def _grid(**values: Iterable[Any]) -> list[Setting]:
    settings: list[Setting] = [{}]
    for name, options in values.items():
        settings = [setting | {name: option} for setting in settings for option in options]
    return settings


_MAGIC_DEFAULT = {"knn": 5, "t": 3}
_FAMILIES = (
    Family(none, {"none": None}, with_eb=False),
    Family(gene_mean, {"gene_mean": None}),
    Family(knn_profiles, {"knn": None}, _grid(n_pcs=(10, 50), k=(5, 10, 20, 50, 100, 200, 400))),
    Family(pca_profiles, {"pca": None}, _grid(curve=("sqrt", "linear"), rank=(2, 5, 10, 20, 40, 80))),
    Family(alra_profiles, {"alra": None}),
    Family(nmf_profiles, {"nmf": None}, _grid(rank=(2, 4, 8, 16, 32, 64))),
    Family(
        magic_profiles,
        {"magic": [_MAGIC_DEFAULT], "magic_tuned": None},
        [*_grid(knn=(5, 15), t=(3, "auto")), {"knn": 5, "t": 1}],
    ),
    Family(masked_profiles, {"autoimpute": None}, with_eb=False),
    Family(scvi_profiles, {"scvi": None}),
)
FAMILIES: dict[str, tuple[list[str], Callable[[Any, int], Iterator[Estimate]]]] = {
    next(iter(family.variants)): (family.methods, partial(of_family, family)) for family in _FAMILIES
}
FAMILIES["magic_open_problems"] = (["magic_open_problems"], magic_open_problems)
FAMILIES["autoimpute_counts"] = (["autoimpute_counts"], autoimpute_counts)
METHODS = [method for methods, _ in FAMILIES.values() for method in methods]


def family_of(method: str) -> str:
    """Return the family that a method is fitted in."""
    return next(name for name, (methods, _) in FAMILIES.items() if method in methods)


def estimates(family: str, train: Any, seed: int) -> Iterator[Estimate]:
    """Run a family on training molecules, one method after the other."""
    return FAMILIES[family][1](train, seed)


def unavailable() -> dict[str, str]:
    """Return the families that cannot run here, each with the reason."""
    missing = {}
    for family, library in (("magic", magic), ("magic_open_problems", magic), ("scvi", scvi)):
        try:
            library.load()
        except MissingDependencyError as error:
            missing[family] = str(error)
    try:
        AutoImpute("counts")
    except ValueError as error:
        missing["autoimpute_counts"] = str(error)
    return missing
