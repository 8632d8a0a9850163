"""Models on disk: older formats, damage, files that are no models, hostile ones; and data that lack genes."""

import io
import json
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save

import scautoimpute as sai
from scautoimpute import AutoImpute
from scautoimpute.model.disk import FORMAT_VERSION

DATA = Path(__file__).parent / "data"
NO_MODEL = "is not a model of scautoimpute, or is damaged: give a file that AutoImpute.save, or --model on the command"
STORED = sorted(path.stem for path in DATA.glob("model_format*.safetensors"))
OF_COUNTS = [name for name in STORED if name.endswith("counts")]


# -------------------------------------------------------------------------------------------------------- formats


def test_every_format_has_its_stored_model():
    """Whoever makes a new format stores a model of it, and never removes one."""
    kinds = {1: ("default", "paper"), 2: ("default", "paper")}
    wanted = [(n, kind) for n in range(1, FORMAT_VERSION + 1) for kind in kinds.get(n, ("counts", "default", "paper"))]
    assert [f"model_format{n}_{kind}" for n, kind in wanted] == STORED


@pytest.mark.parametrize("name", OF_COUNTS)
def test_models_of_counts_give_the_numbers_that_they_gave(name):
    model = AutoImpute.load(DATA / f"{name}.safetensors", device="cpu")
    stored = np.load(DATA / f"{name}.npz")
    counts, batch = frame_as_object(stored["counts"], stored["genes"]), stored["batch"]
    mean, sd = model.posterior(counts, batch=batch)
    # Half precision of the products, where the processor has it
    np.testing.assert_allclose(mean, stored["mean"], rtol=0.02, atol=0.01)
    np.testing.assert_allclose(sd, stored["sd"], rtol=0.05, atol=0.02)
    np.testing.assert_allclose(model.embed(counts, batch=batch), stored["embedding"], rtol=1e-4, atol=1e-5)
    assert len(model.history_) > 3
    assert model.random_state == 0


@pytest.mark.parametrize("name", [name for name in STORED if name not in OF_COUNTS])
def test_models_of_every_format_give_the_numbers_that_they_gave(name):
    model = AutoImpute.load(DATA / f"{name}.safetensors", device="cpu")
    stored = np.load(DATA / f"{name}.npz")
    counts = frame_as_object(stored["counts"], stored["genes"])
    sai.tl.autoimpute(counts, model=model, scale="log2", keep_observed=False)
    np.testing.assert_allclose(counts.layers["imputed"], stored["log2"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(counts.obsm["X_autoimpute"], stored["embedding"], rtol=1e-5, atol=1e-6)
    assert len(model.history_) > 3
    assert model.random_state == 0


@pytest.mark.parametrize("name", STORED)
def test_a_model_that_was_loaded_is_saved_in_the_newest_format(name, tmp_path):
    first = AutoImpute.load(DATA / f"{name}.safetensors", device="cpu")
    first.save(tmp_path / "again")
    assert description(tmp_path / "again")["format_version"] == FORMAT_VERSION
    same(first, AutoImpute.load(tmp_path / "again", device="cpu"))


def frame_as_object(counts, genes):
    from anndata import AnnData

    return AnnData(counts.astype(np.float32), var=pd.DataFrame(index=genes.astype(str)))


def description(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["scautoimpute"])


def same(one, other):
    """Whether two models are the same in all that is saved."""
    x = np.random.default_rng(0).poisson(2.0, (5, one.n_genes_in_)).astype(float)
    batch = {"batch": np.resize(one.batches_, 5)} if one.batches_ else {}
    assert one.impute(x, **batch).tobytes() == other.impute(x, **batch).tobytes()
    assert one.embed(x, **batch).tobytes() == other.embed(x, **batch).tobytes()
    for name in ("settings", "genes_", "n_genes_in_", "held_out_", "converged_", "recipe_", "random_state"):
        assert getattr(one, name) == getattr(other, name), name
    pd.testing.assert_frame_equal(one.history_, other.history_, check_exact=True)


# --------------------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def original():
    return (DATA / f"model_format{FORMAT_VERSION}_default.safetensors").read_bytes()


@pytest.fixture(scope="module")
def intact():
    return AutoImpute.load(DATA / f"model_format{FORMAT_VERSION}_default.safetensors", device="cpu")


def refused(path, said=NO_MODEL):
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        AutoImpute.load(path)
    text = str(raised.value)
    assert "\n" not in text
    assert len(text) < len(str(path)) + 400
    assert str(path) in text
    return text


def test_a_file_cut_short_anywhere_is_refused(original, tmp_path):
    path = tmp_path / "model"
    for length in [*range(64), *range(64, len(original), 97), len(original) - 1]:
        path.write_bytes(original[:length])
        refused(path)


def test_a_changed_number_is_found_out(original, tmp_path):
    """Every byte after the header is part of a tensor."""
    path, start = tmp_path / "model", 8 + int.from_bytes(original[:8], "little")
    for position in range(start, len(original), 211):
        changed = bytearray(original)
        changed[position] ^= 1
        path.write_bytes(changed)
        assert refused(path).endswith("(its check sum is not that of its contents)")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutations_are_refused_or_change_nothing(data, original, intact, tmp_path):
    changed = bytearray(original)
    header = 8 + int.from_bytes(original[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        end = data.draw(st.sampled_from([8, header, len(changed)]))
        at = data.draw(st.integers(0, min(end, len(changed)) - 1))
        what = data.draw(st.sampled_from(["flip", "set", "insert", "delete"]))
        if what == "flip":
            changed[at] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "set":
            changed[at] = data.draw(st.integers(0, 255))
        elif what == "insert":
            changed[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            del changed[at : at + data.draw(st.integers(1, 9))]
    path = tmp_path / "model"
    path.write_bytes(changed)
    model = loaded_or_refused(path)
    if model is not None:
        same(intact, model)


def loaded_or_refused(path):
    try:
        return AutoImpute.load(path, device="cpu")
    except ValueError:
        refused(path, "scautoimpute")
        return None


# ------------------------------------------------------------------------------------- what is no model, or hostile


class Malicious:
    """What runs when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def torch_archive(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def zip_of(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content))
    return buffer.getvalue()


KINDS = {
    "pickle": (pickle.dumps, "it is a pickle"),
    "old pickle": (lambda content: pickle.dumps(content, protocol=0), "InvalidHeader"),
    "torch.save": (torch_archive, "it is a zip archive, as torch.save writes"),
    "zip": (zip_of, "it is a zip archive, as torch.save writes"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_loading_runs_no_code(kind, original, tmp_path):
    written, said = KINDS[kind]
    marker, path = tmp_path / "marker", tmp_path / "model"
    content = written(Malicious(marker))
    for data in (content, original + content, content + original):
        path.write_bytes(data)
        refused(path)
        assert not marker.exists()
    path.write_bytes(content)
    assert said in refused(path) or kind == "old pickle"
    pickle.loads(pickle.dumps(Malicious(marker)))  # it would have
    assert marker.exists()


def test_a_malicious_file_runs_nothing_in_another_process(tmp_path):
    (tmp_path / "model").write_bytes(torch_archive(Malicious(tmp_path / "marker")))
    command = [sys.executable, "-m", "scautoimpute", "impute", "cells.h5ad", "-o", "o.h5ad", "--from-model", "model"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: 'model' is not a model of scautoimpute, or is damaged")
    assert len(done.stderr.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def put_in_counts(**changed):
    """Write the stored model of counts with other tensors, under the check sum of what is then written."""
    from scautoimpute.model.disk import _sum_of

    source = DATA / f"{OF_COUNTS[-1]}.safetensors"
    header, tensors = description(source), load_file(source)
    values = {name: value for name, value in changed.items() if name in header["model"]}
    header["model"] |= values
    tensors |= {name: value for name, value in changed.items() if name not in values}
    header.pop("sha256")
    return save(tensors, metadata={"scautoimpute": json.dumps(header | {"sha256": _sum_of(header, tensors)})})


BAD_COUNTS = {
    "one batch": {"batches": ["a"]},
    "other batches": {"batches": ["a", "b", "c"]},
    "batches of numbers": {"batches": [1, 2]},
    "no library": {"median_library": 0.0},
    "text for a library": {"median_library": "5"},
    "weights beyond one": {"weights": torch.ones(4, dtype=torch.float64)},
    "negative dispersions": {"dispersion": -torch.ones(2, 12)},
    "a tensor too many": {"other": torch.zeros(1)},
}


@pytest.mark.parametrize("changed", BAD_COUNTS.values(), ids=BAD_COUNTS.keys())
def test_models_of_counts_are_what_their_settings_make(changed, tmp_path):
    (tmp_path / "model").write_bytes(put_in_counts())
    AutoImpute.load(tmp_path / "model")
    (tmp_path / "model").write_bytes(put_in_counts(**changed))
    refused(tmp_path / "model")


def rewritten(path, change, *, tensors=None):
    """Write a model with another description, in format 1, which has no check sum to get in the way."""
    source = DATA / "model_format1_default.safetensors"
    header, kept = description(source), load_file(source)
    change(header)
    path.write_bytes(save(kept | (tensors or {}), metadata={"scautoimpute": json.dumps(header)}))


def put(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(header):
        for key in keys:
            header = header[key]
        header[last] = value

    return change


HOSTILE = {
    "format": put("format_version", "1"),
    "format 0": put("format_version", 0),
    "version": put("package_version", 3),
    "settings": put("settings", []),
    "a setting too many": put("settings", "more", 1),
    "objective": put("settings", "objective", ["masked"]),
    "preset": put("settings", "preset", "other"),
    "no width": put("settings", "hidden", []),
    "text for width": put("settings", "hidden", "4"),
    "huge width": put("settings", "hidden", [10**12]),
    "width beyond integers": put("settings", "hidden", [10**30]),
    "many layers": put("settings", "hidden", [4] * 100_000),
    "negative rate": put("settings", "learning_rate", -1.0),
    "NaN": put("settings", "threshold", float("nan")),
    "folds": put("settings", "n_folds", 3),
    "no folds": put("model", "folds", []),
    "many folds": put("model", "folds", [{}] * 100_000),
    "folds of text": put("model", "folds", "ab"),
    "a prior of text": put("model", "base", "cell_prior", "slope", "0.1"),
    "an infinite prior": put("model", "base", "cell_prior", "slope", float("inf")),
    "no spread": put("model", "base", "cell_prior", "spread", 0.0),
    "no noise": put("model", "base", "noise_sd", 0),
    "a prior that calls": put("model", "base", "cell_prior", "lowest", {"__reduce__": "os.system"}),
    "genes repeat": put("genes", ["gene_1"] * 12),
    "genes of numbers": put("genes", list(range(12))),
    "fewer genes": put("genes", ["a"]),
    "huge number of genes": put("n_genes_in", 10**15),
    "no number of genes": put("n_genes_in", True),
    "seed": put("random_state", -1),
    "converged": put("converged", "yes"),
    "history": put("history", {"columns": ["a"], "data": [[1, 2]]}),
    "history of objects": put("history", {"columns": ["a"], "data": [[{}]]}),
    "scores": put("held_out", "model", None),
    "scores of text": put("held_out", "model", "rmse", "0.1"),
    "recipe": put("recipe", {}),
    "shares": put("recipe", "kept_share", [-1.0]),
    "median": put("recipe", "median_total", 0),
    "genes of the recipe": put("recipe", "genes", ["a"]),
    "choices": put("recipe", "choices", {"layer": ["X"]}),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_the_header_says_is_not_believed(change, tmp_path):
    rewritten(tmp_path / "model", lambda _: None)
    AutoImpute.load(tmp_path / "model")
    rewritten(tmp_path / "model", change)
    refused(tmp_path / "model")


BAD_TENSORS = {
    "not finite": {"base.gene": torch.full((12,), torch.nan, dtype=torch.float64)},
    "integers": {"base.gene": torch.zeros(12, dtype=torch.int64)},
    "half precision": {"fold0.gene_G": torch.zeros(12, dtype=torch.bfloat16)},
    "weights beyond one": {"weights": torch.ones(2, dtype=torch.float64)},
    "too many": {"other": torch.zeros(1)},
    "shape": {"fold0.centred.encoder.0.weight": torch.zeros(24, 4)},
}


@pytest.mark.parametrize("tensors", BAD_TENSORS.values(), ids=BAD_TENSORS.keys())
def test_tensors_must_be_those_that_the_settings_make(tensors, tmp_path):
    rewritten(tmp_path / "model", lambda _: None, tensors=tensors)
    refused(tmp_path / "model")


def test_deeply_nested_and_endless_headers(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(save({"a": torch.zeros(1)}, metadata={"scautoimpute": "[" * 200_000}))
    refused(path)
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    refused(path)


def test_a_newer_format_says_who_wrote_it(tmp_path):
    rewritten(tmp_path / "model", lambda header: header.update(format_version=99, package_version="7.5\n"))
    refused(tmp_path / "model", "was written by scautoimpute 7.5 in format 99; this version reads up to")


# ------------------------------------------------------------------------------------------------------------- genes


@pytest.fixture(scope="module")
def trained():
    counts = sai.datasets.simulate(n_cells=80, n_genes=60, random_state=2)
    counts.var_names = [f"Gene{i}" for i in range(60)]
    model = AutoImpute(hidden=6, n_folds=1, threshold=1.0, random_state=0)
    sai.tl.autoimpute(counts.copy(), model=model, n_top_genes=20)
    return counts, model


def test_missing_genes_are_as_good_as_unobserved(trained):
    counts, model = trained
    lost = model.genes_[:5]
    kept = counts[:, ~counts.var_names.isin(lost)].copy()
    share = dict(zip(model.recipe_["kept_genes"], model.recipe_["kept_share"], strict=True))
    missing = sum(share[g] for g in lost) / sum(share[g] for g in model.genes_)
    with pytest.warns(UserWarning) as said:  # noqa: PT030
        sai.tl.autoimpute(kept, model=model, scale="log2")
    assert len(said) == 1
    text = f"5 of the model's 20 genes (e.g. {lost[0]!r}) are not in the data and count as unobserved; they had "
    assert str(said[0].message).startswith(f"{text}{missing:.1%} of the reads of all its genes; 5 of the ")
    assert kept.layers["imputed"].shape == kept.shape  # there is no column for a gene that the data lack
    assert (
        list(kept.var_names[kept.var["autoimpute_modelled"]]) == model.genes_[5:] == list(kept.uns["imputed"]["genes"])
    )
    record = kept.uns["imputed"]["alignment"]
    assert record == {"n_genes": 20, "n_missing": 5, "n_ignored": 40, "share_of_reads_missing": pytest.approx(missing)}
    # The estimator gives all genes of the model, the missing ones from what is there.
    x = sai.pp.recipe_autoimpute(counts, n_top_genes="all", copy=True)[:, model.genes_].copy()
    hidden = x.X.toarray()
    hidden[:, :5] = 0
    with pytest.warns(UserWarning, match="5 of the model's 20 genes"):
        imputed = model.impute(x[:, 5:].copy())
    np.testing.assert_array_equal(imputed, model.impute(hidden))
    assert (imputed[:, :5] > 0).all()


def test_more_genes_change_nothing_but_the_record(trained):
    counts, model = trained
    wider = sai.datasets.simulate(n_cells=80, n_genes=75, random_state=2)
    wider.X = np.hstack([counts.X.toarray(), np.ones((80, 15))]).astype(np.float32)
    wider.var_names = [*counts.var_names, *(f"Other{i}" for i in range(15))]
    del wider.layers["truth"]
    expected = sai.tl.autoimpute(counts, model=model, copy=True)
    sai.tl.autoimpute(wider, model=model)
    np.testing.assert_allclose(wider.layers["imputed"][:, :60], expected.layers["imputed"].toarray(), rtol=1e-6)
    assert wider.uns["imputed"]["alignment"]["n_ignored"] == 55
    assert expected.uns["imputed"]["alignment"]["n_ignored"] == 40


RENAMED = {
    "case": (str.upper, "more match but for upper and lower case, as human and mouse do"),
    "others": (lambda name: f"x{name}", "give data with the genes that the model was trained on, or train a model"),
    "ids": (lambda name: f"ENSG{int(name[4:]):011d}", "the model names genes by symbols, the data by Ensembl ids"),
}


@pytest.mark.parametrize("kind", RENAMED)
def test_too_few_genes_are_refused_with_what_to_do(trained, kind):
    counts, model = trained
    rename, hint = RENAMED[kind]
    other = counts.copy()
    other.var_names = [rename(name) for name in counts.var_names]
    said = (
        rf"only 0 of the model's 20 genes, with 0\.0% of their reads, are among the 60 .*'Gene\d+'.*{re.escape(hint)}"
    )
    with pytest.raises(ValueError, match=said) as raised:
        sai.tl.autoimpute(other, model=model)
    assert "\n" not in str(raised.value)
    assert "imputed" not in other.layers


def test_versions_of_ensembl_ids_are_recognised(trained):
    counts, _ = trained
    ids = counts.copy()
    ids.var_names = [f"ENSG{i:011d}.3" for i in range(60)]
    model = AutoImpute(hidden=4, n_folds=1, threshold=1.0)
    sai.tl.autoimpute(ids.copy(), model=model, n_top_genes=20)
    ids.var_names = [name.split(".")[0] for name in ids.var_names]
    with pytest.raises(ValueError, match="without the version after the dot they match"):
        sai.tl.autoimpute(ids, model=model)


def test_half_of_the_genes_with_few_of_the_reads_do_not_suffice(trained):
    counts, model = trained
    share = dict(zip(model.recipe_["kept_genes"], model.recipe_["kept_share"], strict=True))
    faint = sorted(model.genes_, key=share.get)[:12]
    part = counts[:, [g for g in counts.var_names if g in faint or g not in model.genes_]].copy()
    assert sum(share[g] for g in faint) < 0.5 * sum(share[g] for g in model.genes_)
    with pytest.raises(ValueError, match=r"only 12 of the model's 20 genes, with \d+\.\d% of their reads, are among"):
        sai.tl.autoimpute(part, model=model)
