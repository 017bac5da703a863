"""Arguments of contextssl_jax.main that the launchers depend on."""

from collections.abc import Sequence


def flag_value(arguments: Sequence[str], flag: str) -> str | None:
    """Return the value of a flag, written --flag=VALUE or --flag VALUE; None without it."""
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == flag:
            return value if equals else "".join(arguments[i + 1 : i + 2])
    return None


def is_training(arguments: Sequence[str]) -> bool:
    """Return True if the arguments start or resume training, which is the default mode."""
    return flag_value(arguments, "--mode") in (None, "train")
