"""Convert weights from and to other formats.

    python -m contextssl_jax.convert official FILE --out=WORKDIR
    python -m contextssl_jax.convert --to=official WORKDIR --out=FILE

The first reads a state dict of the official code into a workdir, which --mode=eval and training
take. The optimizer's moments are initial, and the step is 0. The second writes one of the newest
checkpoint, or of --step. Files of PyTorch (.pt, .pth) require the extra `torch`; .safetensors files
do not.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.config import parse_command_line, to_json
from contextssl_jax.data.inputs import input_statistics
from contextssl_jax.distributed.parallel import Parallel
from contextssl_jax.errors import Parser, UserError, run_command
from contextssl_jax.experiment import Experiment, build_experiment
from contextssl_jax.planning.dummy_datasets import dummy_dataset
from contextssl_jax.run.checkpoint import (
    Checkpoint,
    Checkpoints,
    initial_host_data,
)
from contextssl_jax.run.metadata import append_run_metadata, collect_metadata
from contextssl_jax.run.trained_model import read_trained_model, read_workdir_config
from contextssl_jax.run.workdir import CONFIG
from contextssl_jax.step import build_optimizer, start_state
from contextssl_jax.storage.files import write_atomic
from contextssl_jax.storage.paths import io_errors, list_folder, resolve_path, workdir_error
from contextssl_jax.storage.safe_json import truncate
from contextssl_jax.weights.files import check_format, read_tensors, write_tensors
from contextssl_jax.weights.names import (
    flatten_variables,
    unflatten_variables,
)
from contextssl_jax.weights.official import (
    official_entries,
    read_state_dict,
    to_official,
    unused_tensors,
    uses_official_units,
)

_log = logging.getLogger("contextssl_jax.convert")
_CONFIG = "3diebench_rotation_color"


def main(argv: Sequence[str]) -> int:
    """Run the command line and return the exit status, 2 for a user error."""
    return run_command(_run, argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(
        prog="python -m contextssl_jax.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", nargs="+", metavar="official FILE | WORKDIR")
    parser.add_argument("--out", required=True, help="new workdir; with --to, file or folder")
    parser.add_argument("--to", choices=["official"])
    parser.add_argument("--step", type=int, help="checkpoint of WORKDIR; default: the newest")
    parser.add_argument(
        "--config", help=f"config of the new workdir, and --config.x=y; default: {_CONFIG}"
    )
    options, rest = parser.parse_known_args(argv[1:])
    unknown = [argument for argument in rest if not argument.startswith("--config.")]
    if unknown:
        raise UserError(f"{unknown[0]}: unknown argument. Remove it; --help lists all.")
    if options.to is None:
        if len(options.source) != 2 or options.source[0] != "official":
            raise UserError(
                "official FILE: missing. Name the file to convert, as in: python -m"
                " contextssl_jax.convert official FILE --out=WORKDIR."
            )
        if options.step is not None:
            raise UserError("--step: only valid with --to. Remove it; the new run is at step 0.")
        arguments = ["convert", f"--config={options.config or _CONFIG}", *rest]
        config = parse_command_line(arguments, ("convert",)).config
        from_official_file(config, options.source[1], options.out, argv)
        return
    if len(options.source) != 1:
        raise UserError(f"WORKDIR: expected one workdir, not {len(options.source)}. Name one.")
    if options.config or rest:
        raise UserError("--config: only valid without --to; a workdir has its own. Remove it.")
    to_official_file(options.source[0], options.out, options.step)


def from_official_file(config: ConfigDict, path: str, out: str, argv: Sequence[str]) -> None:
    """Write a workdir with the weights of an official state dict, at step 0.

    Args:
      config: the options of the new workdir.
      path: the file; see weights.files.
      out: the workdir, a new or empty folder.
      argv: the command line, for the workdir's metadata.

    Raises:
      UserError: the file is not readable or does not fit the model, the folder is not empty or not
        writable, or the official code has no such model.
    """
    file, workdir = resolve_path(path, "FILE"), resolve_path(out, "--out")
    entries = official_entries(config, "all", "--config")
    if not uses_official_units(config):
        raise UserError(
            "--config: the official code does not standardize actions and targets. Set"
            " --config.model.standardize_actions=False and --config.loss.standardize_targets=False."
        )
    try:
        if list_folder(workdir):
            raise UserError(f"--out: {workdir} is not empty. Choose a new folder.")
    except io_errors() as error:
        raise workdir_error(workdir, error) from error
    content = read_tensors(file, "FILE").tensors
    experiment = _build(config)
    template = flatten_variables(experiment.template().variables)
    shapes = {name: leaf.shape for name, leaf in template.items()}
    advice = "Choose the --config whose model it is, or a different file"
    tensors = read_state_dict(content, entries, "all", shapes, f"FILE: {file}", advice)
    variables = unflatten_variables(tensors)
    statistics = input_statistics(experiment.dataset).to_json()
    del content, tensors
    metadata = collect_metadata(config, argv, deterministic=False)
    metadata["command"][2] = "contextssl_jax.convert"
    try:
        _write_workdir(workdir, config, variables, statistics, metadata | {"converted_from": path})
    except io_errors() as error:
        raise workdir_error(workdir, error) from error
    _log.info("wrote %s; evaluate it by --mode=eval --workdir=%s", workdir, workdir)


def to_official_file(workdir: str, out: str, step: int | None) -> None:
    """Write the weights of a checkpoint as a state dict of the official code.

    Args:
      workdir: of a run of ContextSSL with a ResNet-18.
      out: the file; see weights.files.
      step: of the checkpoint; None for the newest.

    Raises:
      UserError: the official code has no such model, the checkpoint is not readable, or the file
        is not writable.
    """
    file = resolve_path(out, "--out")
    check_format(file, "--out")
    path = resolve_path(workdir, "WORKDIR")
    entries = official_entries(read_workdir_config(path, "WORKDIR"), "all", "WORKDIR")
    saved = read_trained_model(path, step, "WORKDIR")
    config, step, tensors = saved.config, saved.step, saved.variables
    if missing := [entry.ours for entry in entries if entry.ours not in tensors]:
        raise UserError(
            f"WORKDIR: {workdir} has no {truncate(missing[0])}, which its {CONFIG} requires."
            " Restore both from the same run."
        )
    official = to_official(entries, tensors)
    write_tensors(file, official | unused_tensors(official, step), {"step": str(step)}, "--out")
    if not uses_official_units(config):
        _log.warning(
            "the model takes standardized actions or predicts standardized parameters, which the"
            " official code does not"
        )
    _log.info("wrote step %d to %s", step, file)


def _build(config: ConfigDict) -> Experiment:
    """Build the experiment on one device, without data."""
    return build_experiment(
        config, dummy_dataset(config), Parallel("jit", tuple(jax.local_devices()[:1]))
    )


def _write_workdir(
    workdir: epath.Path,
    config: ConfigDict,
    variables: dict[str, Any],
    statistics: dict[str, Any],
    metadata: dict[str, Any],
) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    state = start_state(variables, build_optimizer(config.train))
    with Checkpoints(workdir, keep=1) as checkpoints:
        host_data = initial_host_data(statistics)
        checkpoints.save(Checkpoint(0, jax.device_put(state), host_data))
        checkpoints.wait()
    append_run_metadata(workdir, metadata)
    write_atomic(workdir / CONFIG, to_json(config))  # last: without it, the folder is no workdir


if __name__ == "__main__":
    sys.exit(main(sys.argv))
