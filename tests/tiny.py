"""Options that reduce an experiment to seconds, and a platform's code on the CPU."""

import jax

from contextssl_jax.main import main

# For configs/debug.py.
QUICK = ("--config=configs/debug.py", "--config.train.steps=4", "--config.train.warmup_steps=2",
         "--config.monitor.every=0", "--config.checkpoint.every=2", "--config.data.contexts=2",
         "--config.log.every=2", "--config.log.tensorboard=False",
         "--config.model.transformer.blocks=1", "--config.train.parallel=jit",
         "--config.eval.lengths=(0,4)",
         "--config.eval.environments=('crop','blur')", "--config.eval.probe.steps=5",
         "--config.eval.fit_records=40", "--config.eval.test_records=20",
         "--config.eval.images=30", "--config.eval.retrieval.records=3")  # fmt: skip
# For configs/cifar10_small.py and the configs derived from it.
TINY = ("--config.data.contexts=2", "--config.data.pairs=4", "--config.unconditioned_transforms=()",
        "--config.crop.padding=4", "--config.model.patch.size=4",
        "--config.model.patch.widths=(8,8)", "--config.model.patch.features=8",
        "--config.model.transformer.width=16", "--config.model.transformer.blocks=1",
        "--config.model.transformer.heads=1", "--config.model.transformer.outputs=16",
        "--config.model.predictor.hidden=(8,)", "--config.train.steps=2",
        "--config.train.warmup_steps=1", "--config.train.parallel=jit", "--config.log.every=1",
        "--config.log.tensorboard=False", "--config.monitor.every=2",
        "--config.monitor.fit_views=20", "--config.monitor.test_views=8",
        "--config.monitor.contexts=2", "--config.eval.every=2", "--config.eval.lengths=(0,2)",
        "--config.eval.environments=('crop','none')", "--config.eval.draws=1",
        "--config.eval.fit_records=20", "--config.eval.test_records=8", "--config.eval.images=8",
        "--config.eval.batch=16", "--config.eval.probe.hidden=(8,)",
        "--config.eval.probe.steps=2", "--config.eval.retrieval.records=2",
        "--config.eval.retrieval.views=5")  # fmt: skip


def run(*arguments: object) -> int:
    """Run the command, and return its exit status."""
    return main(["main", *map(str, arguments)])


def choose_platform(monkeypatch, name):
    """Select a platform's branch of lax.platform_dependent on the CPU."""

    def choose(*args, default, **branches):
        return branches.get(name, default)(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
