"""Checkpoints come back whole, and damage at any place is noticed."""

import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.run.checkpoint import Checkpoint, Checkpoints, load_checkpoint

# Orbax leaves callbacks of a failed read to an event loop that it has closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def state(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "step": np.array(seed, np.int32),
        "params": {"w": rng.normal(size=(64, 33)).astype(np.float32), "none": {}},
        "moments": (rng.normal(size=7).astype(np.float32), np.array(3.0, np.float32)),
    }


TEMPLATE = state(0)


def keep_one(checkpoints: Checkpoints, checkpoint: Checkpoint) -> None:
    checkpoints.save(checkpoint, jax.device_put(checkpoint.state))


def save(workdir: epath.Path, steps: range, keep: int = 5) -> None:
    with Checkpoints(workdir, keep) as checkpoints:
        for step in steps:
            host = {"batches": step, "window": [{"loss": 0.1, "r2": float("nan")}]}
            keep_one(checkpoints, Checkpoint(step, state(step), host))
        checkpoints.wait()


def restore(workdir: epath.Path) -> Checkpoint | None:
    with Checkpoints(workdir, 5) as checkpoints:
        return checkpoints.restore(TEMPLATE)


@pytest.fixture
def workdir(tmp_path) -> epath.Path:
    return epath.Path(tmp_path)


def assert_is(found: Checkpoint | None, step: int) -> None:
    assert found is not None and found.step == step
    expected = state(step)
    for a, b in (
        (found.state["params"]["w"], expected["params"]["w"]),
        (found.state["moments"][0], expected["moments"][0]),
        (found.state["step"], expected["step"]),
    ):
        np.testing.assert_array_equal(a, b)
    assert found.host["batches"] == step and found.host["window"][0]["loss"] == 0.1


def test_the_newest_comes_back_exactly(workdir):
    save(workdir, range(1, 4))
    assert_is(restore(workdir), 3)


def test_nothing_saved_is_none(workdir):
    assert restore(workdir) is None


def test_only_the_newest_stay(workdir):
    save(workdir, range(1, 5), keep=2)
    with Checkpoints(workdir, 2) as checkpoints:
        assert checkpoints.steps() == [3, 4]


def test_a_saved_step_is_not_overwritten(workdir):
    save(workdir, range(3, 4))
    with Checkpoints(workdir, 5) as checkpoints:
        keep_one(checkpoints, Checkpoint(3, state(9), {"batches": 9}))
    assert_is(restore(workdir), 3)


def files_of(workdir: epath.Path, step: int) -> list[Path]:
    folder = Path(workdir) / "checkpoints" / str(step)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damage_truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(bytes(data))


def damage_remove(file: Path) -> None:
    file.unlink()


DAMAGES = (damage_truncate, damage_flip, damage_remove)


def largest(workdir: epath.Path, step: int) -> Path:
    return max(files_of(workdir, step), key=lambda file: file.stat().st_size)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_arrays_are_noticed_and_the_one_before_is_used(workdir, damage, caplog):
    save(workdir, range(1, 4))
    damage(largest(workdir, 3))
    with caplog.at_level(logging.WARNING):
        assert_is(restore(workdir), 2)
    assert "checkpoint 3 is damaged" in caplog.text
    assert (workdir / "damaged" / "3").exists()  # kept for whoever wants to look
    save(workdir, range(3, 4))  # and its step can be saved anew
    assert_is(restore(workdir), 3)


def test_damage_to_any_file_never_gives_wrong_numbers(workdir):
    save(workdir, range(1, 3))
    names = [file.relative_to(Path(workdir) / "checkpoints" / "2") for file in files_of(workdir, 2)]
    used = set()
    for i, name in enumerate(names):
        for j, damage in enumerate(DAMAGES):
            copy = Path(workdir) / f"copy{i}_{j}"
            for file in files_of(workdir, 1) + files_of(workdir, 2):
                target = copy / file.relative_to(Path(workdir))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
            damage(copy / "checkpoints" / "2" / name)
            found = restore(epath.Path(copy))
            assert_is(found, found.step if found else -1)
            used.add(found.step)
    assert used == {1, 2}  # some files, such as timings, do not matter


def test_a_folder_of_which_nothing_is_left_is_damaged_too(workdir):
    save(workdir, range(1, 3))
    for file in files_of(workdir, 2):
        file.unlink()
    assert_is(restore(workdir), 1)


def test_a_save_that_a_kill_cut_short_is_ignored(workdir):
    save(workdir, range(1, 2))
    (workdir / "checkpoints" / "2.orbax-checkpoint-tmp-17").mkdir()
    assert_is(restore(workdir), 1)


def test_when_all_are_damaged_nothing_starts_anew(workdir):
    save(workdir, range(1, 3))
    for step in (1, 2):
        damage_flip(largest(workdir, step))
    with pytest.raises(UserError, match="no checkpoint can be read"):
        restore(workdir)
    with pytest.raises(UserError, match="no checkpoint is left of steps 1, 2"):
        restore(workdir)  # nor the next time


@pytest.mark.parametrize("gone", ["checkpoints/2", "checkpoints/2/state", "checkpoints/2/host"])
def test_a_missing_folder_costs_its_steps_alone(workdir, gone, caplog):
    save(workdir, range(1, 3))
    shutil.rmtree(workdir / gone)
    with caplog.at_level(logging.WARNING):
        assert_is(restore(workdir), 1)
    assert "checkpoint 2 is" in caplog.text


def test_one_that_made_room_is_not_missed(workdir, caplog):
    save(workdir, range(1, 4))
    shutil.rmtree(workdir / "checkpoints" / "1")  # as if a kill came before the note
    with caplog.at_level(logging.WARNING):
        assert_is(restore(workdir), 3)
    assert "gone" not in caplog.text


def test_missing_altogether_nothing_starts_anew(workdir):
    save(workdir, range(1, 3))
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint is left of steps 1, 2; put one back"):
        restore(workdir)


def test_no_byte_of_what_the_host_keeps_can_change_unnoticed(workdir):
    save(workdir, range(1, 2))
    (file,) = (file for file in files_of(workdir, 1) if file.parts[-2:] == ("host", "metadata"))
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1  # one digit becomes another
        file.write_bytes(bytes(changed))
        with pytest.raises(UserError, match="no checkpoint in .* can be read"):
            load_checkpoint(workdir, {"params": TEMPLATE["params"]}, None)
    file.write_bytes(whole)
    step, parts = load_checkpoint(workdir, {"params": TEMPLATE["params"]}, None)
    np.testing.assert_array_equal(parts["params"]["w"], state(1)["params"]["w"])


def test_another_models_checkpoint_is_refused_and_stays(workdir):
    save(workdir, range(1, 2))
    other = TEMPLATE | {"params": {"w": np.zeros((64, 34), np.float32), "none": {}}}
    with Checkpoints(workdir, 5) as checkpoints:
        message = r"of another model: params.w is \[64, 33\] there, \[64, 34\] here"
        with pytest.raises(UserError, match=message):
            checkpoints.restore(other)
    assert_is(restore(workdir), 1)


def test_a_checkpoint_under_another_steps_name_is_damaged(workdir):
    save(workdir, range(1, 3))
    shutil.rmtree(workdir / "checkpoints" / "1")
    (workdir / "checkpoints" / "2").rename(workdir / "checkpoints" / "1")
    with pytest.raises(UserError, match="no checkpoint can be read"):
        restore(workdir)
