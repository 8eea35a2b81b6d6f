"""Arrays of anybody: what is opened, how parts are read, and what is refused without being run."""

from __future__ import annotations

import json
import pickle
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from phaselab.brains import stories
from phaselab.encoding import arrays
from phaselab.encoding.arrays import open_array
from phaselab.errors import PhaselabError
from phaselab.lazy import View

VALUES = np.arange(30 * 7, dtype=np.float32).reshape(30, 7)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(text: str) -> arrays.Array:
    return open_array(text, "features")


def refused(text: str) -> str:
    with pytest.raises(PhaselabError) as caught:
        opened(text)
    return str(caught.value)


def save_all(values: np.ndarray) -> list[str]:
    """The same array in every format."""
    np.save("X.npy", values)
    np.savez("X.npz", X=values)
    zarr.save_array("X.zarr", values)
    zarr.open_group("group.zarr", mode="w").create_array("a/b", data=values, chunks=(7, 3))
    with h5py.File("X.h5", "w") as file:
        file["X"] = values
    with h5py.File("X.hdf5", "w") as file:
        file.create_dataset("a/b", data=values, chunks=(7, 3), compression="gzip")
    return ["X.npy", "X.npz", "X.npz:X", "X.zarr/", "group.zarr", "group.zarr:/a/b", "X.h5", "lab=X.hdf5:a/b"]


def test_every_format_gives_the_same_values() -> None:
    for text in save_all(VALUES):
        array = opened(text)
        assert (array.shape, array.dtype) == ((30, 7), np.float32), text
        np.testing.assert_array_equal(array[...], VALUES)


@pytest.mark.parametrize(
    ("kind", "given_as"),
    [
        *((kind, "float32") for kind in ("float16", ">f4", "int16", "bool")),
        ("float64", "float64"),
        ("int32", "float64"),
    ],
)
def test_values_are_float32_where_that_holds_them(kind: str, given_as: str) -> None:
    np.save("X.npy", VALUES.astype(kind))
    assert opened("X.npy")[:3].dtype == given_as


@given(columns=st.tuples(st.integers(0, 4), st.integers(1, 5)), source=st.sampled_from(["npy", "zarr", "h5"]))
def test_a_part_is_indexed_as_an_array(tmp_path_factory: Any, columns: tuple[int, int], source: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "parts"
    if not folder.exists():
        folder.mkdir()
        np.save(folder / "X.npy", VALUES)
        zarr.save_array(folder / "X.zarr", VALUES)
        with h5py.File(folder / "X.h5", "w") as file:
            file["X"] = VALUES
    kept = np.array([0, 2, 3, 4, 6])
    part, whole = View(opened(f"{folder}/X.{source}"), slice(5, 25), kept), VALUES[5:25][:, kept]
    assert (part.shape, part.dtype) == (whole.shape, whole.dtype)
    chosen = slice(columns[0], columns[0] + columns[1])
    np.testing.assert_array_equal(part[:, chosen], whole[:, chosen])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_what_was_read_of_a_file_does_not_stay_in_memory() -> None:
    def mapped() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssFile")).split()[1]) // 1024

    np.save("X.npy", np.ones((200, 80_000), np.float32))
    array, before = opened("X.npy"), mapped()
    for start in range(0, 80_000, 4000):
        assert View(array, slice(5, 195))[:, start : start + 4000].sum() == 190 * 4000
    assert mapped() - before < 15  # of 61 MiB


class Planted:
    """Were it unpickled, a file would appear."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path("unpickled").touch, ()


def test_pickled_objects_are_refused_and_never_run() -> None:
    np.save("objects.npy", np.array([[Planted()]], dtype=object), allow_pickle=True)
    np.savez("objects.npz", X=np.array([[Planted()]], dtype=object))
    Path("pickle.npy").write_bytes(pickle.dumps(Planted()))
    Path("pickle.npz").write_bytes(pickle.dumps(Planted()))
    store = Path("objects.zarr")
    store.mkdir()
    content = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "<f4", "fill_value": 0, "order": "C"}
    (store / ".zarray").write_text(json.dumps({**content, "compressor": {"id": "pickle"}, "filters": None}))
    (store / "0").write_bytes(pickle.dumps(Planted()))
    for name in ("objects.npy", "objects.npz", "pickle.npz", "pickle.npy", "objects.zarr"):
        assert refused(name).startswith(f"features: {name}: ")
    with h5py.File("text.h5", "w") as file:
        file["X"] = ["a", "b"]
    assert "features: text.h5: values: found object of shape (2,), expected real numbers" in refused("text.h5")
    assert not Path("unpickled").exists()


def test_what_holds_no_numbers_is_refused() -> None:
    np.save("text.npy", np.array([["a", "b"]]))
    np.save("complex.npy", VALUES + 1j)
    np.save("empty.npy", VALUES[:, :0])
    for name, found in {"text": "<U1", "complex": "complex64", "empty": "float32 of shape (30, 0)"}.items():
        assert f"features: {name}.npy: values: found {found}" in refused(f"{name}.npy")


def test_files_that_are_none() -> None:
    np.save("X.npy", VALUES)
    assert "features: nix.npy: [Errno 2] No such file" in refused("nix.npy")
    assert "features: X.mat: expected [LABEL=]PATH[:ARRAY], PATH with .npy, .npz, .zarr, .h5 or" in refused("X.mat")
    Path("cut.npy").write_bytes(Path("X.npy").read_bytes()[:200])
    Path("cut.npz").write_bytes(b"PK\x03\x04")
    Path("cut.h5").write_bytes(b"\x89HDF")
    Path("empty.zarr").mkdir()
    for name in ("cut.npy", "cut.npz", "cut.h5", "empty.zarr"):
        assert refused(name).startswith(f"features: {name}: ")
    zarr.open_group("group.zarr", mode="w")
    assert "group.zarr: array: found none, expected the name of one" in refused("group.zarr")


def test_without_h5py_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    Path("X.h5").write_bytes(b"")
    assert "features: X.h5: import of h5py halted" in refused("X.h5")


def test_a_chunk_that_is_damaged_is_told() -> None:
    zarr.save_array("Y.zarr", VALUES)
    next(path for path in Path("Y.zarr").rglob("c/*/*")).write_bytes(b"damaged")
    with pytest.raises(PhaselabError, match=r"features: Y\.zarr: found a part that cannot be read"):
        opened("Y.zarr")[...]


def test_several_arrays_are_listed() -> None:
    np.savez("both.npz", words=VALUES, bold=VALUES)
    assert "features: both.npz: array: found bold, words, expected the name of one, both.npz:NAME" in refused(
        "both.npz"
    )
    zarr.save_array("X.zarr", VALUES)
    np.save("X.npy", VALUES)
    group = zarr.open_group("data.zarr", mode="w")
    with h5py.File("data.hdf5", "w") as file:
        for name, values in (("sub-01/bold", VALUES), ("sub-02/bold", VALUES[:, :3])):
            group.create_array(name, data=values)
            file[name] = values
        for number in range(25):
            file[f"z/{number}"] = VALUES
    for text in ("data.zarr:bold", "data.hdf5"):
        assert f"features: {text}: array: found sub-01/bold, sub-02/bold" in refused(text)
    assert "X.npy:a: array: found a single one, expected no name" in refused("X.npy:a")


def test_a_sign_of_equality_in_a_path_is_no_label() -> None:
    np.save("lr=1.npy", VALUES)
    assert (opened("./lr=1.npy").label, opened("deep=lr=1.npy").label) == ("", "deep")
    Path("b/store.zarr").mkdir(parents=True)
    with h5py.File("b/store.zarr/sub.h5", "w") as file:
        file["x/y"] = VALUES
    array = opened("a=b/store.zarr/sub.h5:x/y")
    assert (array.label, array.path) == ("a", Path("b/store.zarr/sub.h5"))


@pytest.mark.parametrize("name", ["X.npz", "X.h5", "X.zarr", "chunk.h5"])
def test_arrays_that_claim_more_than_memory_are_refused_before_they_are_read(here: Path, name: str) -> None:
    """A thousand million zeros take some megabytes on disk, or, where they were never written, nothing at all."""
    n = 2**16
    if name == "X.npz":
        with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as file, file.open("X.npy", "w") as stream:
            np.lib.format.write_array_header_1_0(
                stream, {"descr": "<f8", "fortran_order": False, "shape": (n // 2, 64)}
            )
            stream.write(b"\0" * (8 * n * 32))
    elif name == "X.zarr":
        zarr.create_array(name, shape=(n, n), chunks=(64, 64), dtype="f8")
    else:
        with h5py.File(name, "w") as file:
            file.create_dataset("X", (n, n), "f8", chunks=(64, 64) if name == "X.h5" else (2**14, 2**14))
    began = time.monotonic()
    with pytest.raises(PhaselabError, match=rf"{name}: values: found .* GiB when unpacked, expected .*memory"):
        open_array(name, "features", memory=0.01)
    assert time.monotonic() - began < 5


def test_arrays_larger_than_memory_that_are_what_they_claim_are_read_in_parts() -> None:
    for text in save_all(np.random.default_rng(0).random((300, 70))):
        if ".npz" not in text and text != "X.zarr/":  # which are read at once, the latter for it is a single chunk
            assert open_array(text, "responses", memory=1e-4).shape == (300, 70)


def test_values_of_hdf5_do_not_come_from_outside_of_the_folder(here: Path) -> None:
    (folder := here / "mine").mkdir()
    (here / "secret.raw").write_bytes(b"x" * 64)
    for path in (here / "other.h5", folder / "beside.h5"):
        with h5py.File(path, "w") as file:
            file["X"] = np.ones((8, 1))
    for name, source in (("out.h5", "../other.h5"), ("in.h5", "beside.h5"), ("far.h5", str(here / "other.h5"))):
        layout = h5py.VirtualLayout((8, 1), "f8")
        layout[:] = h5py.VirtualSource(source, "X", (8, 1))
        with h5py.File(folder / name, "w") as file:
            file.create_virtual_dataset("X", layout)
            file["soft"] = h5py.SoftLink("/X")
            file["linked"] = h5py.ExternalLink(source, "/X")
    with h5py.File(folder / "raw.h5", "w") as file:
        file.create_dataset("X", (8, 1), "f8", external=[(str(here / "secret.raw"), 0, 64)])
    assert opened("mine/in.h5:X").shape == (8, 1)
    for name in ("out.h5", "far.h5"):
        assert "other.h5, expected a file in mine" in refused(f"mine/{name}:X")
    assert "secret.raw" in refused("mine/raw.h5")
    # Links are not followed here; where a name is looked up in a file (the stories' responses) they are looked at.
    assert "array: found X" in refused("mine/out.h5:linked")
    for name in ("out.h5", "far.h5"):
        with pytest.raises(PhaselabError, match="expected a file in"):
            stories.opened(folder / name, "linked", 8, 1)
    assert stories.opened(folder / "in.h5", "linked", 8, 1).shape == (8, 1)
