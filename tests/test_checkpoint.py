"""Checkpoints: exact restore, and detection of damaged and missing checkpoints."""

import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from jax.experimental import multihost_utils

from contextssl_jax.errors import UserError
from contextssl_jax.run.checkpoint import Checkpoint, Checkpoints, load_checkpoint

# After a failed read, Orbax runs callbacks on a closed event loop.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def state(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "step": np.array(seed, np.int32),
        "params": {"w": rng.normal(size=(64, 33)).astype(np.float32), "none": {}},
        "moments": (rng.normal(size=7).astype(np.float32), np.array(3.0, np.float32)),
    }


TEMPLATE = state(0)


def save_one(checkpoints: Checkpoints, checkpoint: Checkpoint) -> None:
    checkpoints.save(checkpoint._replace(state=jax.device_put(checkpoint.state)))


def save(workdir: epath.Path, steps: range, keep: int = 5) -> None:
    with Checkpoints(workdir, keep) as checkpoints:
        for step in steps:
            host = {"batches": step, "window": [{"loss": 0.1, "r2": float("nan")}]}
            save_one(checkpoints, Checkpoint(step, state(step), host))
        checkpoints.wait()


def restore(workdir: epath.Path) -> Checkpoint | None:
    with Checkpoints(workdir, 5) as checkpoints:
        return checkpoints.restore(TEMPLATE)


@pytest.fixture
def workdir(tmp_path) -> epath.Path:
    return epath.Path(tmp_path)


def test_host_data_of_earlier_versions_is_renamed(workdir):
    with Checkpoints(workdir, 5) as checkpoints:
        save_one(checkpoints, Checkpoint(1, state(1), {"batches": 1, "looked": 0}))
    restored = restore(workdir)
    assert restored is not None and restored.host == {"batches": 1, "monitored_step": 0}


def assert_restored(found: Checkpoint | None, step: int) -> None:
    assert found is not None and found.step == step
    expected = state(step)
    for a, b in (
        (found.state["params"]["w"], expected["params"]["w"]),
        (found.state["moments"][0], expected["moments"][0]),
        (found.state["step"], expected["step"]),
    ):
        np.testing.assert_array_equal(a, b)
    assert found.host["batches"] == step and found.host["window"][0]["loss"] == 0.1


def test_newest_checkpoint_is_restored_exactly(workdir):
    save(workdir, range(1, 4))
    assert_restored(restore(workdir), 3)


def test_restore_returns_none_if_nothing_was_saved(workdir):
    assert restore(workdir) is None


def test_old_checkpoints_are_deleted(workdir):
    save(workdir, range(1, 5), keep=2)
    with Checkpoints(workdir, 2) as checkpoints:
        assert checkpoints.steps() == [3, 4]


def test_saved_step_is_not_overwritten(workdir):
    save(workdir, range(3, 4))
    with Checkpoints(workdir, 5) as checkpoints:
        save_one(checkpoints, Checkpoint(3, state(9), {"batches": 9}))
    assert_restored(restore(workdir), 3)


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
def test_previous_checkpoint_is_restored_if_arrays_are_damaged(workdir, damage, caplog):
    save(workdir, range(1, 4))
    damage(largest(workdir, 3))
    with caplog.at_level(logging.WARNING):
        assert_restored(restore(workdir), 2)
    assert "checkpoint 3 is damaged" in caplog.text
    assert (workdir / "damaged" / "3").exists()  # moved, not deleted
    save(workdir, range(3, 4))  # the step can be saved again
    assert_restored(restore(workdir), 3)


def test_damage_to_any_file_never_restores_wrong_values(workdir):
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
            assert_restored(found, found.step if found else -1)
            used.add(found.step)
    assert used == {1, 2}  # damage to some files, such as timings, has no effect


def test_empty_checkpoint_is_damaged(workdir):
    save(workdir, range(1, 3))
    for file in files_of(workdir, 2):
        file.unlink()
    assert_restored(restore(workdir), 1)


def test_failed_save_is_reported_also_if_another_error_ends_the_run(workdir, monkeypatch):
    """On a full disk, metrics may fail while a checkpoint is being saved, which fails too."""

    def fail(manager):
        raise OSError(28, "No space left on device")

    save(workdir, range(1, 2))
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.close", fail)
    for error in (None, UserError("metrics.jsonl: cannot write")):
        with pytest.raises(UserError, match="cannot save a checkpoint .No space.* is step 1"):
            with Checkpoints(workdir, 5):
                if error is not None:
                    raise error
    with pytest.raises(RuntimeError, match="an error of the program"), Checkpoints(workdir, 5):
        raise RuntimeError("an error of the program")


def test_interrupted_save_is_ignored(workdir):
    save(workdir, range(1, 2))
    (workdir / "checkpoints" / "2.orbax-checkpoint-tmp-17").mkdir()
    assert_restored(restore(workdir), 1)


def test_restore_raises_if_all_checkpoints_are_damaged(workdir):
    save(workdir, range(1, 3))
    for step in (1, 2):
        damage_flip(largest(workdir, step))
    with pytest.raises(UserError, match="all checkpoints are damaged"):
        restore(workdir)
    with pytest.raises(UserError, match="the checkpoints of steps 1, 2 are missing"):
        restore(workdir)  # a second attempt raises as well


@pytest.mark.parametrize("gone", ["checkpoints/2", "checkpoints/2/state", "checkpoints/2/host"])
def test_previous_checkpoint_is_restored_if_a_folder_is_missing(workdir, gone, caplog):
    save(workdir, range(1, 3))
    shutil.rmtree(workdir / gone)
    with caplog.at_level(logging.WARNING):
        assert_restored(restore(workdir), 1)
    assert "checkpoint 2 is" in caplog.text


def test_deleted_old_checkpoint_is_not_reported_missing(workdir, caplog):
    save(workdir, range(1, 4))
    shutil.rmtree(workdir / "checkpoints" / "1")  # as in a kill before checkpoints.json is updated
    with caplog.at_level(logging.WARNING):
        assert_restored(restore(workdir), 3)
    assert "missing" not in caplog.text


def test_restore_raises_if_all_checkpoints_are_missing(workdir):
    save(workdir, range(1, 3))
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(UserError, match="checkpoints of steps 1, 2 are missing. Restore one"):
        restore(workdir)


def test_any_changed_byte_of_the_host_data_is_detected(workdir):
    save(workdir, range(1, 2))
    (file,) = (file for file in files_of(workdir, 1) if file.parts[-2:] == ("host", "metadata"))
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1  # changes a digit to another digit
        file.write_bytes(bytes(changed))
        with pytest.raises(UserError, match="all checkpoints in .* are damaged"):
            load_checkpoint(workdir, {"params": TEMPLATE["params"]}, None)
    file.write_bytes(whole)
    parts = load_checkpoint(workdir, {"params": TEMPLATE["params"]}, None).state
    np.testing.assert_array_equal(parts["params"]["w"], state(1)["params"]["w"])


def test_checkpoint_of_another_model_is_rejected_and_kept(workdir):
    save(workdir, range(1, 2))
    other = TEMPLATE | {"params": {"w": np.zeros((64, 34), np.float32), "none": {}}}
    with Checkpoints(workdir, 5) as checkpoints:
        message = (
            r"a different model .the shape of params.w is \[64, 33\] in the checkpoint, \[64, 34\]"
        )
        with pytest.raises(UserError, match=message):
            checkpoints.restore(other)
    assert_restored(restore(workdir), 1)


def test_renamed_checkpoint_is_damaged(workdir):
    save(workdir, range(1, 3))
    shutil.rmtree(workdir / "checkpoints" / "1")
    (workdir / "checkpoints" / "2").rename(workdir / "checkpoints" / "1")
    with pytest.raises(UserError, match="all checkpoints are damaged"):
        restore(workdir)


def test_save_does_not_move_the_count_of_checks_for_stop_signals(workdir, monkeypatch):
    steps: list[int] = []

    def reached(step: int) -> bool:
        steps.append(step)
        return False

    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", reached)
    save(workdir, range(1, 3))
    assert restore(workdir) is not None and not steps
