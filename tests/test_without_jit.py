"""JAX_DISABLE_JIT, as people debug: training, the monitor and a report run eagerly."""

import json

import jax
from tiny import QUICK, run

EAGER = ("--config.train.steps=1", "--config.train.warmup_steps=0", "--config.checkpoint.every=1",
         "--config.log.every=1", "--config.data.pairs=2", "--config.model.transformer.blocks=1",
         "--config.model.transformer.heads=1", "--config.model.patch.blocks=1",
         "--config.synthetic.side=8", "--config.monitor.every=1", "--config.monitor.fit_views=10",
         "--config.monitor.test_views=5", "--config.monitor.contexts=1", "--config.eval.every=1",
         "--config.eval.lengths=(0,2)", "--config.eval.fit_records=8", "--config.eval.images=6",
         "--config.eval.test_records=4", "--config.eval.probe.steps=1",
         "--config.eval.probe.hidden=(4,)", "--config.eval.retrieval.records=2",
         "--config.eval.retrieval.views=5", "--config.blur.taps=3")  # fmt: skip


def test_a_run_without_jit(tmp_path):
    with jax.disable_jit():
        assert run(*QUICK, *EAGER, f"--workdir={tmp_path}") == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines if "monitor/knn" in line} == {0, 1}
    report = json.loads((tmp_path / "eval" / "1" / "report.json").read_text())
    assert set(report["r2"]) == {"crop", "blur"}
