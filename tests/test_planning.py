"""--mode=plan: its tables and JSON, dummy data sets, and errors."""

import json
import os
import subprocess
import sys

import jax
import miniature3d
import numpy as np
import pytest
from tiny import run

from configs import own_images, quickstart
from contextssl_jax.data import DATASETS
from contextssl_jax.data.contexts import context_batches, parse_environments
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.planning.dummy_datasets import dummy_dataset, reads_data
from contextssl_jax.planning.hardware import CHIPS
from contextssl_jax.planning.plan import make_plan
from contextssl_jax.planning.program import build_program, host_devices
from contextssl_jax.planning.tables import format_plan

jax.devices()  # initializes JAX with four devices, before a plan initializes it with fewer

DEBUG = ("--mode=plan", "--config=configs/debug.py")


def rows(text: str) -> dict[str, list[str]]:
    """Return the rows of tables by their first cell."""
    cells = [line.strip().split("  ") for line in text.splitlines()]
    return {line[0]: [cell.strip() for cell in line[1:] if cell] for line in cells}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Return the debug plan for two devices, with JAX configured to use GPUs."""
    folder = tmp_path_factory.mktemp("plan")
    command = [sys.executable, "-m", "contextssl_jax.main", *DEBUG, "--devices=2"]
    command += [f"--workdir={folder / 'run'}", f"--out={folder / 'plan.json'}"]
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in folder.iterdir()] == ["plan.json"]  # no workdir is created
    return json.loads((folder / "plan.json").read_text()), result.stdout


def test_printed_tables_are_aligned_and_explained(planned):
    plan, text = planned
    assert text.strip() == format_plan(plan)
    assert max(map(len, text.splitlines())) <= 100
    words = " ".join(text.split())
    assert "2 devices (shard_map, sharded optimizer state), 2 contexts per device" in words
    assert "--config.data.contexts is divisible by 1, 2 or 4 devices" in words
    assert "no data read" in words and "assumed 35% of the peak" in words
    assert "peak rate of float32 products at the precision 'highest' (six products of" in words
    for block in text.split("\n\n")[1:]:
        table = block.splitlines()[: 1 + sum(name in rows(block) for name in plan["parameters"])]
        assert len({len(line) for line in table}) == 1
    for chip in CHIPS:
        assert rows(text)[chip.name][:2] == ["1", f"{chip.float32['highest'] / 1e12:.0f}"]


def test_plan_is_consistent(planned):
    plan, text = planned
    assert rows(text)["encoder"] and sum(plan["parameters"].values()) == 36_333
    held, saved, everything = (plan["memory"][key] for key in ("held", "saved", "all"))
    matrices = 35_136  # parameters in arrays of two or more axes, of which a device updates half
    updated = 36_333 - matrices // 2
    assert held["parameters"] == 4 * updated
    assert held["gathered parameters"] == held["gradients"] == 4 * 36_333
    assert held["optimiser moments"] == 4 * 2 * updated + 2 * 4  # and two step counters
    # The arguments are the state, the step, the run's key and half the batch, without the unused
    # positions of the contexts, which share their masks, and without the labels of 8 pairs each.
    arguments = sum(held[key] for key in ("parameters", "optimiser moments", "batch"))
    assert plan["compiled"]["arguments"] == arguments - 2 * 4 - 2 * 8 * 4 + 4 + 8
    for which in ("fused", "unfused"):
        assert everything[which] == sum(held.values()) + sum(s[which] for s in saved.values())
    assert all(0 <= sizes["fused"] <= sizes["unfused"] for sizes in saved.values())
    flops = [n for part in plan["flops"]["parts"].values() for n in part.values()]
    assert plan["flops"]["all"] == sum(flops)
    v4 = plan["chips"][0]
    assert v4["step_seconds"] == pytest.approx(sum(flops) / (2 * 275e12 / 6 * 0.35))
    assert v4["run_seconds"] == pytest.approx(30 * v4["step_seconds"])
    moved = 4 * (7 * updated + 36_333) + 4 * 4
    assert v4["update_seconds"] == pytest.approx(moved / CHIPS[0].bandwidth)


def test_more_devices_only_change_the_part_of_each(config, planned, monkeypatch):
    compile_ = jax.stages.Lowered.compile
    options = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr(
        jax.stages.Lowered, "compile", lambda lowered: compile_(lowered, compiler_options=options)
    )
    one = make_plan(config, 1, 0.5)
    two, _ = planned
    assert one["traffic"] is None and "sent by" not in format_plan(one)
    assert one["flops"]["all"] == two["flops"]["all"]
    assert one["memory"]["held"]["batch"] == 2 * two["memory"]["held"]["batch"]
    for part in ("encoder", "predictor"):
        saved = [plan["memory"]["saved"][part]["unfused"] for plan in (one, two)]
        assert saved[0] == pytest.approx(2 * saved[1], rel=0.01)
    assert one["chips"][0]["step_seconds"] == pytest.approx(two["chips"][0]["step_seconds"] * 1.4)


@pytest.mark.parametrize("data", ["cifar10", "folder", "objects3d"])
def test_dummy_datasets_have_labels_for_supervised_methods(config, data):
    config.data.name, config.method = data, "supervised"
    if data == "objects3d":
        config.groups = config.environments = ("rotation", "color")
    config.supervised.group = config.groups[0]
    program = build_program(config, 1)
    assert "classifier" in program.state.params


def test_table_shows_which_chips_fit(planned):
    plan = json.loads(json.dumps(planned[0]))
    assert all(chip["fits"] == {"fused": True, "unfused": True} for chip in plan["chips"])
    for chip, fits in zip(plan["chips"], [(0, 0), (1, 0), (1, 1)], strict=False):
        chip["fits"] = dict(zip(("fused", "unfused"), map(bool, fits), strict=True))
    table = rows(format_plan(plan))
    names = [chip["name"] for chip in plan["chips"]]
    assert [table[name][3] for name in names[:3]] == ["no", "maybe", "yes"]


def test_peak_rates_are_those_of_the_type_and_precision():
    v4, *_, h100, _ = CHIPS
    assert [chip.peak("bfloat16", "highest") / 1e12 for chip in (v4, h100)] == [275, 989]
    for precision, rates in {"default": (275, 494.5), "highest": (275 / 6, 67)}.items():
        found = [chip.peak("float32", precision) / 1e12 for chip in (v4, h100)]
        assert found == pytest.approx(rates)


def test_table_names_the_products_of_the_peak(planned):
    plan = json.loads(json.dumps(planned[0]))
    plan["run"]["dtype"] = "bfloat16"
    assert "peak rate of dense bfloat16 products." in format_plan(plan)


def test_hosts():
    v4, v5e = CHIPS[:2]
    assert [v4.hosts(n) for n in (1, 4, 8, 10)] == [1, 1, 2, 3]
    assert [v5e.hosts(n) for n in (1, 8, 16)] == [1, 1, 2]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((*DEBUG, "--devices=3"), "--config.data.contexts: 4 is not divisible by the number of"),
        ((*DEBUG, "--devices=0"), "--devices"),
        ((*DEBUG, "--utilisation=0"), "--utilisation"),
        ((*DEBUG, "--utilisation=35"), "--utilisation"),
        ((*DEBUG, "--config.train.parallel=jit", "--devices=2"), "train.parallel: 'jit'"),
        ((*DEBUG, "--config.train.parallel=mpi"), "train.parallel: must be one of"),
        ((*DEBUG, "--config.data.name=imagenet"), "data.name: unknown value 'imagenet'"),
        ((*DEBUG, "--config.data.name=tfds"), "--config.tfds.side"),
        ((*DEBUG, "--config.data.contexts=64", "--devices=64"), "--devices: JAX is already"),
        ((*DEBUG, "--step=3"), "--step: only valid with --mode=eval"),
        (
            (DEBUG[1], "--devices=2"),
            "--devices, --utilisation, --out, --chip: only valid with --mode=plan",
        ),
        ((DEBUG[1], "--mode=eval", "--out=x"), "only valid with --mode=plan"),
        ((DEBUG[1], "--chip=v5e"), "only valid with --mode=plan"),
        ((*DEBUG, "--chip=v7"), "--chip: unknown value 'v7'. Choose one of h100, v5e"),
    ],
)
def test_invalid_option_is_a_one_line_error(arguments, message, tmp_path, capsys):
    assert run(f"--workdir={tmp_path / 'run'}", *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("error: ") and "\n" not in error
    assert not (tmp_path / "run").exists()


@pytest.fixture
def compiler(monkeypatch, planned):
    """Return a function that sets the status, output and messages of the compiling process."""
    monkeypatch.setattr("contextssl_jax.planning.plan.make_plan", lambda *_: planned[0])
    monkeypatch.setattr("contextssl_jax.planning.targets.is_installed", lambda module: True)

    def give(*result):
        commands = []

        def run_isolated(command, environment):
            commands.append((command, environment))
            return result

        monkeypatch.setattr("contextssl_jax.planning.compilation.run_isolated", run_isolated)
        return commands

    return give


COMPILED = {
    "device": "TPU v5 lite",
    "devices": 2,
    "jax": "0.10.2",
    "seconds": 61.2,
    "memory": {"arguments": 2.04e9, "temporaries": 2.25e9, "outputs beside donated arguments": 0},
    "flops": {"products": 4.94e12, "xla": None},
    "bytes": {"kernels": 33.8e9, "xla": None},
    "kernels": 1725,
    "estimate": "compiler",
    "milliseconds": 120_000,
    "peak_share": 0.42,
    "collectives": {
        "all-reduce": {"count": 3, "bytes": 5e6, "overlapped": 1, "overlapped_bytes": 4e6}
    },
}


def test_chip_adds_the_estimate_of_its_compiler(planned, compiler, tmp_path, capsys):
    commands = compiler(0, f"a line of a library\n{json.dumps(COMPILED)}\n", "")
    out = tmp_path / "plan.json"
    arguments = (*DEBUG, "--chip=v5e", "--devices=2", f"--out={out}")
    assert run(*arguments) == 0
    [(command, environment)] = commands
    assert command[-len(arguments) :] == list(arguments)
    assert environment["JAX_PLATFORMS"] == "cpu" and environment["TPU_SKIP_MDS_QUERY"] == "1"

    run_seconds = 30 * 120
    estimate = {**COMPILED, "run_seconds": run_seconds}
    assert json.loads(out.read_text()) == {**planned[0], "chip_estimate": estimate}
    text = capsys.readouterr().out
    assert text.startswith(format_plan(planned[0]))
    assert max(map(len, text.splitlines())) <= 100
    added = text.removeprefix(format_plan(planned[0]))
    for words in (
        "Estimate of the compiler for chips that are not there: 2 x TPU v5 lite\n",
        "arguments 2.04, temporaries 2.25",
        "kernels: 1,725",
        "estimated by the compiler, not measured: 120000.00, 42% of the peak rate",
        "run of 30 steps at this rate: 1.0 h",
    ):
        assert words in added
    assert rows(added)["all-reduce"] == ["3", "5.000", "1", "4.000"]


def test_plan_without_chip_has_times_by_arithmetic_only(planned):
    plan, text = planned
    assert plan["chip_estimate"] is None and "Estimate of the compiler" not in text
    assert "\nTimes are arithmetic from the chips' peak rates at --utilisation;" in text


def test_failed_compilation_is_its_one_line_error(compiler, capsys):
    compiler(2, "", "a warning\nerror: --devices: v5e has topologies of at most 256 devices\n")
    assert run(*DEBUG, "--chip=v5e") == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == "error: --devices: v5e has topologies of at most 256 devices"
    assert "a warning" not in error

    compiler(1, "", "Traceback (most recent call last):\nTypeError: a defect\n")
    with pytest.raises(RuntimeError, match="TypeError: a defect"):
        run(*DEBUG, "--chip=v5e")


def test_missing_compiler_is_an_error_before_the_plan(monkeypatch, capsys):
    monkeypatch.setattr("contextssl_jax.planning.targets.is_installed", lambda module: False)
    assert run(*DEBUG, "--chip=v5e") == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err == (
        "error: --chip=v5e: its compiler is not installed. Run: pip install"
        " 'contextssl-jax[compile-tpu]'\n"
    )


def test_unwritable_output_file_is_an_error(monkeypatch, planned, capsys):
    monkeypatch.setattr("contextssl_jax.planning.plan.make_plan", lambda *_: planned[0])
    assert run(*DEBUG, "--out=/dev/null/plan.json") == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: --out: cannot write /dev/null/plan.json")
    assert output.out.strip() == format_plan(planned[0])


def shapes(config, dataset: Dataset) -> list[tuple]:
    batches = context_batches(
        dataset.splits["train"],
        parse_environments(config.environments, config.groups),
        seed=0,
        contexts=2,
        pairs=config.data.pairs,
        environment_per="all",
    )
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batches[0])]


def test_dummy_datasets_have_the_shapes_of_the_real_ones(config, tmp_path):
    config.data.pairs = 4
    config.folder.update(path=str(tmp_path / "images"), side=8)
    config.bench3d.update(path=str(tmp_path / "bench3d"), side=16)
    config.objects3d.update(side=8, train=8, test=4, pool=0)
    (tmp_path / "bench3d").mkdir()
    miniature3d.write(tmp_path / "bench3d")
    (tmp_path / "images").mkdir()
    for i in range(40):
        pixels = np.full((9, 12, 3), i, np.uint8)
        miniature3d.Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    for name in ("folder", "3diebench", "objects3d"):
        config.data.name = name
        if name != "folder":
            config.groups = config.environments = ("rotation", "color")
            config.unconditioned_transforms = ("blur",)
        real, dummy = DATASETS[name].build(config), dummy_dataset(config)
        assert shapes(config, dummy) == shapes(config, real), name
        np.testing.assert_array_equal(dummy.space.param_mean, real.space.param_mean)


@pytest.mark.parametrize("name, side", [("cifar10", 32), ("tfds", 24)])
def test_dummy_datasets_of_stored_images(config, name, side):
    config.data.name, config.tfds.side = name, 24
    shape, kind = shapes(config, dummy_dataset(config))[0]
    assert shape == (2, 8, 1, side, side, 3) and kind == np.uint8


def test_dummy_datasets_read_no_files_and_render_no_pool():
    for module in (own_images, quickstart):
        config = module.get_config()
        assert not reads_data(config)
        assert dummy_dataset(config).splits["train"].size == config.data.pairs
    assert shapes(config, dummy_dataset(config))[:2] == [
        ((2, 64, 2, 32, 32, 3), np.uint8),  # an image for each view of a pool
        ((2, 64, 2, 4 + 4 + 2), np.float32),  # rotation, color and light
    ]


def test_host_devices_returns_the_requested_number():
    assert len(host_devices(3)) == 3 and jax.device_count() == 4
