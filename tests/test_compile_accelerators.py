"""The train step compiles for an H100 and a TPU v5e by their own compilers, without such chips.

Each test needs the optional dependencies compile-gpu or compile-tpu.
"""

import json

import pytest

from contextssl_jax.benchmarks import compiled
from contextssl_jax.errors import UserError
from contextssl_jax.methods import METHODS
from contextssl_jax.models import ENCODERS
from contextssl_jax.planning.targets import check_installed

SMALL = ("--config=configs/cifar10_crop_blur.py", "--config.data.contexts=1",
         "--config.data.pairs=8")  # fmt: skip
FULL = ("cifar10_crop_blur", "3diebench_rotation_color")


@pytest.fixture
def figures(tmp_path, capsys):
    """Compiles, and returns the figures; skips the test without the compiler."""

    def compile_for(chip, *arguments):
        try:
            check_installed(chip)
        except UserError as error:
            pytest.skip(str(error))
        out = tmp_path / "figures.json"
        status = compiled.main(["compiled", f"--chip={chip}", f"--out={out}", *arguments])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        assert max(map(len, printed.out.splitlines())) <= 110
        return json.loads(out.read_text())

    return compile_for


@pytest.mark.parametrize("method", METHODS)
def test_every_method_compiles_for_an_h100(method, figures):
    options = f"--config.method={method}", "--config.supervised.group=crop"
    found = figures("h100", *SMALL, *options)
    assert found["method"] == method and "H100" in found["device"]
    assert found["products"]["bf16 x bf16"] >= 3 * 20 - 1  # the convolutions


@pytest.mark.parametrize(
    "encoder, stem",
    [
        (encoder, stem)
        for encoder in ENCODERS
        for stem in ("cifar", "imagenet")
        if (encoder, stem) != ("patch", "imagenet")  # it has no stem to choose
    ],
)
def test_every_encoder_compiles_for_an_h100(encoder, stem, figures):
    options = f"--config.model.encoder={encoder}", f"--config.model.resnet.stem={stem}"
    assert figures("h100", *SMALL, *options)["encoder"] == encoder


@pytest.mark.parametrize("config", FULL)
def test_the_full_configs_compile_for_an_h100(config, figures):
    found = figures("h100", f"--config=configs/{config}.py")
    assert found["dtype"] == "bfloat16" and found["estimate"] == "roofline"
    # The count of the compiled step may differ by products that XLA rewrites, of 1e-8 here.
    flops = sum(part["flops"] for part in found["parts"].values())
    assert flops == pytest.approx(found["flops"]["products"], rel=1e-6)
    assert 0 < found["peak_share"] < 1 and not found["collectives"]
    # 20 convolutions with two gradients each, of which the first layer has no use for one, are
    # all bfloat16, as are the transformer's products, of which some round float32 operands.
    low = sum(count for name, count in found["products"].items() if "bf16" in name)
    assert low >= 3 * 20 - 1 + 3 * (1 + 4 * 3 + 1 + 3)
    assert sum(part["kernels"] for part in found["parts"].values()) == found["kernels"] < 1000
    assert found["memory"]["arguments"] + found["memory"]["temporaries"] < 80e9
    assert found["memory"]["outputs beside donated arguments"] < 1e6


def test_float32_compiles_for_an_h100(figures):
    products = figures("h100", *SMALL, "--config.model.dtype=float32")["products"]
    assert not any(name.startswith("bf16") for name in products)


def test_eight_devices_compile_for_h100s(figures):
    contexts = "--config.data.contexts=8"
    found = figures("h100", *SMALL, contexts, "--devices=8")
    assert found["devices"] == 8 and found["collectives"]["all-reduce"]["overlapped"]


def test_the_full_config_compiles_for_a_tpu(figures):
    found = figures("v5e", "--config=configs/cifar10_crop_blur.py")
    assert found["device"] == "TPU v5 lite"
    assert found["estimate"] == "compiler" and 0.2 < found["peak_share"] < 1
    times = [part["milliseconds"] for part in found["parts"].values()]
    assert sum(times) == pytest.approx(found["milliseconds"], abs=0.01)
    assert found["flops"]["products"] == pytest.approx(found["flops"]["xla"], rel=0.05)
    assert found["memory"]["arguments"] + found["memory"]["temporaries"] < 16e9


@pytest.mark.parametrize("arguments, message", [
    (("--devices=3",), "--config.data.contexts: 1 is not divisible by the number of devices, 3"),
    (("--devices=1000",), "--devices: h100 has topologies of at most 8 devices, not 1000"),
    (("--config.loss.temperatur=1",), "--config.loss.temperatur: no such option"),
])  # fmt: skip
def test_mistakes_are_one_line(arguments, message, figures, capsys):
    with pytest.raises(AssertionError, match="^error: ") as caught:
        figures("h100", *SMALL, *arguments)
    assert message in str(caught.value)
