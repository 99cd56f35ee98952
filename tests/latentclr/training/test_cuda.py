"""What only a GPU can show: fp16 with its scaler, bf16, and a run that moves between devices."""

from __future__ import annotations

import pytest
import torch
from test_training import equal

from latentclr.commands import run_eval, run_train
from latentclr.compose import compose_train
from latentclr.training.checkpoint import load_resume
from latentclr.training.distributed import Processes
from latentclr.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]
GPU = Processes(0, 1, torch.device("cuda", 0))


@pytest.mark.parametrize("precision", ["false", "bf16", "fp16"])
def test_mixed_precision_on_a_gpu(short, tmp_path, precision):
    words = [*short, "device=cuda", f"mixed_precision={precision}", "tensorboard=false"]
    made = Trainer(compose_train(words), tmp_path / "gpu", GPU)
    assert made.fit()
    assert made.scaler.is_enabled() == (precision == "fp16")
    exact = Trainer(
        compose_train([*short, "tensorboard=false"]), tmp_path / "cpu", Processes(0, 1, torch.device("cpu"))
    )
    assert exact.fit()
    assert made.history.loss == pytest.approx(exact.history.loss, abs=0.03)


def test_a_gpu_run_resumes_and_is_read_on_the_cpu(short, tmp_path):
    run = tmp_path / "run"
    words = [*short, "device=cuda", "mixed_precision=fp16", f"output_dir={run}"]
    assert run_train(words)
    before = load_resume(run / "resume.pt")
    assert run_train([f"checkpoint={run}", "hparams.iterations=16"])
    after = load_resume(run / "resume.pt")
    assert after["loss"][:12] == before["loss"]
    assert not equal(after["directions"], before["directions"])
    assert run_eval(run, ["device=cpu", "mixed_precision=false", "eval_iters=2"]).samples == 8
