"""--mode=embed and --mode=export: files in, files out, without a config or a data set."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image
from test_interface import Case

import contextssl_jax as cssl
from contextssl_jax.interface import embed_command
from contextssl_jax.weights.saved_model import write_model
from tests.tiny import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a model, images, and a context."""
    folder = tmp_path_factory.mktemp("tools")
    write_model(epath.Path(folder / "model"), Case("images").saved, "--out")
    rng = np.random.default_rng(0)
    (folder / "images" / "below").mkdir(parents=True)
    for i in range(9):
        name = f"below/{i}.png" if i % 2 else f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / "images" / name)
    (folder / "images" / "notes.txt").write_text("no image")
    (folder / "images" / "damaged.png").write_bytes(b"no image")
    rows = [f"images/{i}.png,images/{i + 2}.png,{0.1 * i}" for i in (0, 2, 4)]
    (folder / "pairs.csv").write_text("\n".join(["x,y,blur.sigma", *rows]) + "\n")
    return folder


def read(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file))


def embed(folder: Path, out: Path, *more: object) -> int:
    options = f"--model={folder / 'model'}", f"--images={folder / 'images'}", f"--out={out}"
    return run("--mode=embed", *options, *more)


def expected(
    folder: Path, length: int | None = None, rounding: float = 0.0
) -> tuple[list[str], np.ndarray]:
    model, images = cssl.load(folder / "model"), folder / "images"
    paths = sorted(
        [*(f"{i}.png" for i in (0, 2, 4, 6, 8)), *(f"below/{i}.png" for i in (1, 3, 5, 7))]
    )
    x, y = ([read(images / f"{i + by}.png") for i in (0, 2, 4)] for by in (0, 2))
    context = model.context(x, y, blur=[0.0, 0.2, 0.4])
    stacked = np.stack([read(images / path) for path in paths])
    return paths, model.embed(stacked, context, length=length, rounding=rounding)


@pytest.mark.parametrize("options", [{}, {"length": 4, "rounding": 0.5}])
def test_a_folder_is_embedded_as_by_the_interface(folder, tmp_path, options):
    out, more = tmp_path / "out.npz", [f"--{name}={value}" for name, value in options.items()]
    assert embed(folder, out, f"--context={folder / 'pairs.csv'}", *more) == 0
    paths, embeddings = expected(folder, **options)
    with np.load(out) as found:
        assert found["paths"].tolist() == paths
        np.testing.assert_allclose(found["embeddings"], embeddings, atol=1e-5)
    assert list(tmp_path.iterdir()) == [out]


def test_an_interrupted_run_goes_on(folder, tmp_path, monkeypatch, capsys):
    out, calls = tmp_path / "out.npz", []
    monkeypatch.setattr(embed_command, "_CHUNK", 4)
    real = cssl.Model.embed

    def interrupted(self, *arguments, **more):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments, **more)

    context = f"--context={folder / 'pairs.csv'}"
    monkeypatch.setattr(cssl.Model, "embed", interrupted)
    assert embed(folder, out, context) == 130
    assert not out.exists()
    monkeypatch.setattr(cssl.Model, "embed", real)
    assert embed(folder, out) == 2  # without the context
    assert "is of another model, context, rounding or folder" in capsys.readouterr().err
    (first,) = (tmp_path / "out.npz.partial").glob("*.npz")
    before = first.stat().st_mtime_ns
    monkeypatch.setattr(embed_command.shutil, "rmtree", lambda path: None)
    assert embed(folder, out, context) == 0
    assert first.stat().st_mtime_ns == before  # not computed again
    paths, embeddings = expected(folder)
    with np.load(out) as found:
        assert found["paths"].tolist() == paths
        np.testing.assert_allclose(found["embeddings"], embeddings, atol=1e-5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "must start with the columns x,y"),
        ("x,y\n", "must start with the columns x,y and have a row"),
        ("x,y,hue\na,b,1\n", "column 'hue' is repeated or unknown. The model has crop.centre_y"),
        ("x,y,crop.centre_y\na,b,1\n", "column crop.centre_x is missing"),
        ("x,y\nimages/0.png\n", "row 1 has 1 values, but there are 2 columns"),
        ("x,y\nimages/0.png,images/none.png\n", "none.png: cannot be read (does not exist)"),
        ("x,y\nimages/0.png,images/damaged.png\n", "damaged.png: cannot be read (no images)"),
        ("x,y,blur.sigma\nimages/0.png,images/0.png,a\n", "row 1 has 'a' instead of a number"),
        ("x,y,blur.sigma\nimages/0.png,images/0.png,900\n", "900 is"),
        ("x,y\n" + 8 * "images/0.png,images/0.png\n", "8 pairs, but the model"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_one_line(folder, tmp_path, table, message, capsys):
    file = folder / "wrong.csv"
    file.write_text(table)
    assert embed(folder, tmp_path / "out.npz", f"--context={file}") == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and "--context: " in error and message in error


def test_wrong_arguments_are_one_line(folder, tmp_path, capsys):
    for arguments, message in (
        (("--mode=embed",), "the following arguments are required: --model, --images, --out"),
        (("--mode=embed", "--model=none", f"--images={folder / 'images'}", "--out=a.npz"),
         "--model: none does not exist"),
        (("--mode=embed", "--model=none", f"--images={tmp_path}", "--out=a.npz"), "no images in"),
        (("--mode=embed", "--model=none", f"--images={tmp_path}", "--out=a"), "must end in .npz"),
        (("--mode=embed", f"--model={folder / 'model'}", f"--images={folder / 'images'}",
          "--out=a.npz", "--rounding=5"), "--rounding: 5.0, expected 0 to 4"),
        (("--mode=export", "--model=none", f"--out={tmp_path}"), "--model: none does not exist"),
    ):  # fmt: skip
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error


SCRIPT = """
import sys
sys.modules["contextssl_jax"] = None  # an import of the package fails
import jax, numpy as np
encode, embed = (
    jax.export.deserialize(bytearray(open(f"{name}.jaxexport", "rb").read())).call
    for name in ("encode", "embed")
)
data = np.load("data.npz")
features = encode(data["images"])
pairs = np.zeros(data["shape"], np.float32)
pairs[:3] = np.stack([encode(data["x"]), encode(data["y"])], axis=1)
actions = np.zeros((len(pairs), 5), np.float32)
actions[:3] = data["observed"]
results = [embed(features, data["actions"], pairs, actions, np.int32(n)) for n in (0, 4, 6)]
np.savez("results.npz", features=features, embeddings=np.stack(results))
"""


def test_an_export_runs_without_the_package(folder, tmp_path):
    assert run("--mode", "export", f"--model={folder / 'model'}", f"--out={tmp_path}") == 0
    text = (tmp_path / "README.md").read_text()
    assert "features [N, 32]" in text and "{{" not in text
    model = cssl.load(folder / "model")
    rng = np.random.default_rng(1)
    x, y, images = (rng.random((n, 16, 16, 3), np.float32) for n in (3, 3, 5))
    crops, blurs = rng.normal(size=(3, 4)) / 5, rng.random((5, 1), np.float32)
    hidden = np.full((3, 1), np.nan)
    np.savez(
        tmp_path / "data.npz", images=images, x=x, y=y,
        observed=np.concatenate([crops, hidden], axis=1),
        actions=np.concatenate([np.full((5, 4), np.nan, np.float32), blurs], axis=1),
        shape=(model.card.max_pairs, 2, model.card.features),
    )  # fmt: skip
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, check=True)
    context = model.context(x, y, crop=crops)
    with np.load(tmp_path / "results.npz") as found:
        np.testing.assert_allclose(found["features"], model.encode(images), atol=1e-5)
        for length, embeddings in zip((0, 4, 6), found["embeddings"], strict=True):
            same = model.embed(images, context, length=length, blur=blurs)
            np.testing.assert_allclose(embeddings, same, atol=1e-5)
    artifact = bytearray((tmp_path / "embed.jaxexport").read_bytes())
    assert jax.export.deserialize(artifact).platforms == ("cpu", "cuda", "tpu")
