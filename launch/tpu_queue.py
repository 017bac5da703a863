"""Requests for a TPU slice, as queued resources, which are granted when there is capacity."""

import argparse
import time
from collections.abc import Sequence

from contextssl_jax.errors import UserError
from launch.tpu_slice import Pod, Request

# Runtime version by the prefix of the accelerator type.
RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}


def create(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Request the slice unless it exists, and wait until it is READY."""
    acquire(pod, options)
    pod.print_result(f"{pod.name} is READY")


def acquire(pod: Pod, options: argparse.Namespace) -> None:
    """Return when the slice is READY, at once if it is.

    A slice that does not exist is requested. One that was preempted, or whose earlier request has
    failed, is deleted and requested again.

    Raises:
      UserError: the request fails, for example since --valid-until-duration has passed.
    """
    requested, printed = False, None
    while (state := pod.state()) != "READY":
        request = pod.request()
        seen = state or (request.state if request else None)
        if seen not in (None, printed):
            pod.print_result(f"{pod.name}: {seen}")
            printed = seen
        if requested and request and request.state == "FAILED":
            raise UserError(
                f"{pod.name}: its request has failed: {request.reason or 'without a reason'}."
                " Change the options of the request, or repeat the command."
            )
        if _is_lost(state, request):
            pod.print_result(f"{pod.name} is lost: deleting and requesting it again")
            pod.delete(queued=request is not None)
            state = request = None
        if state == "STOPPED":
            pod.start()
        elif state is None and request is None:
            _request(pod, options)
            requested = True
        else:
            time.sleep(options.poll)
        if pod.dry_run:
            pod.print_condition(f"every {options.poll:g} s until it is READY")
            pod.state()
            return


def _is_lost(state: str | None, request: Request | None) -> bool:
    """Return True if the slice is preempted or its request has ended, so that both can go."""
    if request is None or request.state == "ACTIVE":
        return state in ("PREEMPTED", "TERMINATED")
    return request.state in ("SUSPENDED", "FAILED")


def _request(pod: Pod, options: argparse.Namespace) -> None:
    if not options.type:
        raise UserError("--type: missing. Specify an accelerator type, such as --type=v6e-8.")
    version = options.version or RUNTIMES.get(options.type.split("-")[0])
    if not version:
        raise UserError(
            f"--version: no default for --type={options.type}. Specify the runtime version."
        )
    pod.print_condition("if neither exists (after a preemption, both are deleted first)")
    duration = options.valid_until_duration
    pod.create(
        [
            f"--accelerator-type={options.type}",
            f"--runtime-version={version}",
            *(["--spot"] if options.spot else []),
            *(["--reserved"] if options.reserved else []),
            *([f"--valid-until-duration={duration}"] if duration else []),
            *options.create_option,
        ]
    )
