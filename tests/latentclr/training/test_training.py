"""Training runs: determinism, resume, what they leave behind, mixed precision, clipping."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_plugin
import torch
from PIL import Image
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_generators import dcgan_tensors

from latentclr.commands import run_train
from latentclr.compose import compose_run, compose_train
from latentclr.config import TrainConfig
from latentclr.errors import CheckpointError, ConfigError, LatentCLRError
from latentclr.training.checkpoint import load_checkpoint, load_resume, save_resume
from latentclr.training.distributed import Processes
from latentclr.training.evaluation import held_out
from latentclr.training.experiment import new_step, open_run, trained_step
from latentclr.training.finite import all_finite
from latentclr.training.trainer import Trainer

ALONE = Processes(0, 1, torch.device("cpu"))


def trainer(words, folder) -> Trainer:
    """Train in this process without log, pictures or command line."""
    made = Trainer(compose_train([*words, "tensorboard=false"]), folder, ALONE)
    assert made.fit()
    return made


def equal(a, b) -> bool:
    """Deep equality of plain containers and tensors, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def without_place(state):
    """A run's state without where it was written."""
    return {**state, "config": {**state["config"], "output_dir": None}}


@pytest.mark.parametrize("extra", [[], ["projector=nonlinear", "projector.middle_features=16"], ["model=global"]])
def test_one_seed_one_result(short, tmp_path, extra):
    torch.manual_seed(1)
    one = trainer([*short, *extra], tmp_path / "one").state()
    torch.manual_seed(2)  # the global seed has no say
    two = trainer([*short, *extra], tmp_path / "two").state()
    assert equal(one, two)
    other = trainer([*short, *extra, "seed=1"], tmp_path / "other").state()
    assert not equal(one["directions"], other["directions"])
    assert one["loss"] != other["loss"]


def test_training_learns(short, tmp_path):
    made = trainer([*short, "hparams.iterations=150", "hparams.optimizer.lr=0.01", "eval_freq=150"], tmp_path / "run")
    fresh = new_step(made.config, torch.device("cpu"))
    before = held_out(fresh, 4, 10, 0)
    after = held_out(made.step, 4, 10, 0)
    assert after[0] < before[0] - 0.02
    assert after[1] > before[1]


def test_run_folder(trained, short):
    names = {path.name for path in trained.iterdir()}
    events = {name for name in names if name.startswith("events.")}
    assert len(events) == 1
    expected = {"best.safetensors", "last.safetensors", "resume.pt", "loss.png", "grid.png", "train.log", ".hydra"}
    assert names - events == expected
    for picture in ("loss.png", "grid.png"):
        with Image.open(trained / picture) as image:
            assert image.format == "PNG"
            assert np.asarray(image.convert("RGB")).std() > 5  # not one colour
    log = (trained / "train.log").read_text()
    assert "4 directions over 24 values" in log
    assert "step 6: train loss" in log
    assert "held-out accuracy" in log
    assert "generator:" in (trained / ".hydra" / "config.yaml").read_text()


def test_tensorboard_events(trained):
    accumulator = EventAccumulator(str(trained), size_guidance={"scalars": 0})
    accumulator.Reload()
    assert set(accumulator.Tags()["scalars"]) == {"Loss/train", "Acc/train", "Loss/val", "Acc/val"}
    state = load_resume(trained / "resume.pt")
    train = accumulator.Scalars("Loss/train")
    assert [event.step for event in train] == list(range(1, 13))
    assert [event.value for event in train] == pytest.approx(state["loss"], abs=1e-6)
    assert [(event.step, event.value) for event in accumulator.Scalars("Loss/val")] == [
        (step, pytest.approx(loss, abs=1e-6)) for step, loss, _ in state["held_out"]
    ]


def test_best_and_last(short, tmp_path):
    """Where the rate explodes half way, the best checkpoint is an early one and the last is the last."""
    folder, explode = tmp_path / "run", ["hparams.scheduler.milestones=[15]", "hparams.scheduler.gamma=1e6"]
    made = trainer([*short, *explode, "hparams.iterations=30", "eval_freq=3", "hparams.optimizer.lr=0.01"], folder)
    losses = {step: loss for step, loss, _ in made.history.held_out}
    best, last = load_checkpoint(folder / "best.safetensors"), load_checkpoint(folder / "last.safetensors")
    assert sorted(losses) == list(range(3, 31, 3))
    assert best.loss == made.best_loss == min(losses.values()) == losses[best.iteration]
    assert best.iteration <= 15
    assert last.iteration == 30
    assert last.loss == losses[30]
    assert equal(dict(last.directions.state_dict()), dict(made.step.directions.state_dict()))
    for name, checkpoint in (("best", best), ("last", last)):  # what the file holds scores what it says
        config, opened = open_run(folder, [f"checkpoint={name}"], TrainConfig)
        step = trained_step(config, opened, torch.device("cpu"))
        assert held_out(step, 4, 2, 0)[0] == pytest.approx(checkpoint.loss, abs=1e-6)


def test_resume_after_a_finished_run_goes_on(run):
    before = load_resume(run / "resume.pt")
    assert run_train([f"checkpoint={run}", "hparams.iterations=20"])
    after = load_resume(run / "resume.pt")
    assert after["iteration"] == 20
    assert after["loss"][:12] == before["loss"]
    assert [step for step, _, _ in after["held_out"]] == [6, 12, 18, 20]
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
    accumulator.Reload()
    assert [event.step for event in accumulator.Scalars("Loss/train")] == list(range(1, 21))


def test_resume_into_another_folder_leaves_the_first_alone(run, tmp_path):
    before = {path.name: path.read_bytes() for path in run.glob("*.*") if path.is_file()}
    assert run_train([f"checkpoint={run}", "hparams.iterations=14", f"output_dir={tmp_path / 'copy'}"])
    assert load_resume(tmp_path / "copy" / "resume.pt")["iteration"] == 14
    assert {path.name: path.read_bytes() for path in run.glob("*.*") if path.is_file()} == before


def test_the_best_of_a_run_goes_into_another_folder(run, tmp_path):
    """Where nothing better comes there would be none, and the last would be taken for it."""
    best, copy = load_checkpoint(run / "best.safetensors"), tmp_path / "copy"
    assert run_train([f"checkpoint={run}", f"output_dir={copy}"])
    kept, state = load_checkpoint(copy / "best.safetensors"), load_resume(copy / "resume.pt")
    assert best.loss == kept.loss == state["best_loss"]
    assert equal(dict(kept.directions.state_dict()), dict(best.directions.state_dict()))


@pytest.mark.parametrize(
    "change", ["loss.temp=0.1", "loss.reduce=sum", "hparams.batch_size=5", "eval_iters=3", "seed=9", "model.alpha=9.0"]
)
def test_losses_of_another_kind_are_not_compared(run, change):
    """Whether they are larger or smaller: the best is one of those that were measured alike."""
    assert run_train([f"checkpoint={run}", change, "hparams.iterations=18", "tensorboard=false"])
    best, state = load_checkpoint(run / "best.safetensors"), load_resume(run / "resume.pt")
    assert [step for step, _, _ in state["held_out"]] == [6, 12, 12, 18]
    alike = state["held_out"][2:]
    assert (best.iteration, best.loss) == min(((step, loss) for step, loss, _ in alike), key=lambda pair: pair[1])
    assert f"{change.partition('=')[0]} changed" in (run / "train.log").read_text()


def test_a_best_that_was_lost_is_made_again(run):
    """Else `gen` and `export` would take the last for it without a word."""
    (run / "best.safetensors").unlink()
    assert run_train([f"checkpoint={run}"])
    assert load_checkpoint(run / "best.safetensors").iteration == 12
    assert "looked for anew from step 12 on" in (run / "train.log").read_text()


def test_a_run_is_not_overwritten(run, short):
    with pytest.raises(ConfigError, match="already holds a run: resume it with checkpoint="):
        run_train([*short, f"output_dir={run}"])


def test_a_resumed_run_overwrites_no_other(run, short, tmp_path, monkeypatch):
    other = tmp_path / "other"
    assert run_train([*short, "seed=1", f"output_dir={other}"])
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"other already holds a run: resume it with checkpoint=.*, or choose"):
        run_train([f"checkpoint={run}", "hparams.iterations=14", f"output_dir={other}"])
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before
    monkeypatch.chdir(run)  # the run itself, by another name
    assert run_train([f"checkpoint={run}", "hparams.iterations=14", "output_dir=../run"])
    assert load_resume(run / "resume.pt")["iteration"] == 14


def test_a_run_of_the_origin_is_not_overwritten(short, tmp_path):
    (tmp_path / "best_model.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match="already holds a run"):
        run_train([*short, f"output_dir={tmp_path}"])
    assert [path.name for path in tmp_path.iterdir()] == ["best_model.pt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("k=5", "k is 4 in RUN and cannot be changed to 5 on resume: train anew, into another folder"),
        ("model.depth=3", "model.depth is 2 in RUN and cannot be changed to 3 on resume"),
        ("projector.depth=2", "projector.depth is 3 in RUN and cannot be changed to 2"),
        ("generator.feature_layer=main.5", "generator.feature_layer is main.2 in RUN and cannot be changed to main.5"),
        ("hparams.optimizer.name=SGD", "hparams.optimizer.name is Adam in RUN and cannot be changed to SGD"),
        ("hparams.scheduler.gamma=0.5", "hparams.scheduler is {'name': 'MultiStepLR'"),
        ("model=linear", "model=linear: this run was trained with model nonlinear"),
        ("projector=linear", "projector=linear: this run was trained with projector identity"),
        (
            "generator.weights=OTHER",
            "RUN/resume.pt is of a dcgan with other weights: bring those back, or train anew",
        ),
    ],
)
def test_resume_refuses_another_model(run, tmp_path, invoke, refused, change, message):
    save_file(dcgan_tensors(dim=9), tmp_path / "other.safetensors")
    change = change.replace("OTHER", str(tmp_path / "other.safetensors"))
    line = refused(invoke("train", f"checkpoint={run}", change, "hparams.iterations=20"))
    assert message.replace("RUN", str(run)) in line
    assert load_resume(run / "resume.pt")["iteration"] == 12


def test_resume_refuses_weights_that_were_replaced(short, tmp_path, invoke, refused):
    """What a run learns is of one network: another file of the same name and shapes would go on without a word."""
    weights, run = tmp_path / "a.safetensors", tmp_path / "run"
    save_file(dcgan_tensors(), weights)
    words = [*short, f"generator.weights={weights}", "tensorboard=false"]
    assert run_train([*words, f"output_dir={run}"])
    other = {name: -tensor if name == "main.0.weight" else tensor for name, tensor in dcgan_tensors().items()}
    save_file(other, weights)
    line = refused(invoke("train", f"checkpoint={run}", "hparams.iterations=14"))
    assert f"{run / 'resume.pt'} is of a dcgan with other weights" in line
    state = load_resume(run / "resume.pt")
    assert state["iteration"] == 12
    del state["weights_sha256"]  # as states of before are
    save_resume(run / "resume.pt", state)
    assert run_train([f"checkpoint={run}", "hparams.iterations=14"])


def test_resume_refuses_a_generator_of_ones_own_that_was_edited(short, tmp_path, invoke, refused):
    """docs/your-own-gan.md: another generator under the same word is refused."""
    file, run = tmp_path / "mine.py", tmp_path / "run"
    shutil.copy(Path(tiny_plugin.__file__), file)
    word = f"generator={file}:make"
    words = [word, *short[1:], "tensorboard=false", "hparams.iterations=2"]
    assert run_train([*words, f"output_dir={run}"])
    file.write_text(file.read_text().replace("manual_seed(seed)", "manual_seed(seed + 1)"))
    line = refused(invoke("train", f"checkpoint={run}", word, "hparams.iterations=4"))
    assert "is of a make with other weights" in line


@pytest.mark.parametrize(
    ("before", "changed", "told"),
    [
        (
            "lr=0.001",
            "amsgrad=true",
            "amsgrad cannot be changed on resume (what can: lr, betas, eps, weight_decay, maxim",
        ),
        ("lr=0.001", "fused=true", "fused cannot be changed"),
        ("lr=0", "lr=0.001", "lr is 0 in this run and cannot be changed"),
        ("name=RMSprop", "momentum=0.9", "momentum is 0 in this run and cannot be changed"),
    ],
)
def test_resume_refuses_what_an_optimizer_cannot_change(short, tmp_path, invoke, refused, before, changed, told):
    """State that the new argument asks for was never kept, so that the next step would fail."""
    run, key = tmp_path / "run", "hparams.optimizer"
    assert run_train([*short, f"{key}.{before}", "hparams.iterations=2", "tensorboard=false", f"output_dir={run}"])
    line = refused(invoke("train", f"checkpoint={run}", f"{key}.{changed}", "hparams.iterations=4"))
    assert f"{key}.{told}" in line


def test_a_lower_rate_on_resume_is_taken(run):
    """The advice after a divergence; what the schedule has done to the rate stays."""
    words = ["hparams.scheduler.milestones=[8]", "hparams.scheduler.gamma=0.5"]
    config = load_resume(run / "resume.pt")["config"]
    made = Trainer(compose_run(config, [*words, "tensorboard=false"], TrainConfig), run, ALONE)
    assert made.fit()
    lower = ["hparams.optimizer.lr=0.0001", "hparams.optimizer.weight_decay=0.0", "hparams.iterations=14"]
    again = Trainer(compose_run(made.state()["config"], lower, TrainConfig), run, ALONE)
    again.load_state(load_resume(run / "resume.pt"))
    (group,) = again.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (pytest.approx(0.00005), 0.0)
    assert again.fit()
    assert group["lr"] == pytest.approx(0.00005)


@pytest.mark.parametrize("name", ["linear", "nonlinear"])
def test_projectors_train_or_stay(short, tmp_path, name):
    words = [*short, f"projector={name}", "projector.out_features=8", "projector.middle_features=16"]
    start = new_step(compose_train(words), torch.device("cpu")).projector.state_dict()
    moved = trainer(words, tmp_path / "moved").step.projector.state_dict()
    stayed = trainer([*words, "train_projector=false"], tmp_path / "stayed").step.projector.state_dict()
    assert equal(dict(start), dict(stayed))  # batch statistics included
    changed = [key for key in start if not torch.equal(start[key], moved[key])]
    assert any("linear_1.weight" in key for key in changed)
    assert any("running_var" in key for key in changed)
    assert load_checkpoint(tmp_path / "moved" / "best.safetensors").projector.kind == name


def test_mixed_precision(short, tmp_path, caplog):
    exact = trainer(short, tmp_path / "exact")
    caplog.set_level("INFO")
    rounded = trainer([*short, "mixed_precision=bf16"], tmp_path / "bf16")
    assert rounded.step.options.rounding is torch.bfloat16
    assert exact.history.loss != rounded.history.loss
    (said,) = [record.message for record in caplog.records if "mixed_precision" in record.message]
    number = r"[\d.e-]+ %"
    assert re.fullmatch(
        f"mixed_precision=bf16 rounds changes of features, {number} off float32 on codes of this run; edits change"
        f" features by {number}, so rounded features would be {number} off", said
    )  # fmt: skip
    assert rounded.history.loss == pytest.approx(exact.history.loss, abs=0.02)
    assert all(p.dtype == torch.float32 for p in rounded.step.parameters())
    yes = Trainer(compose_train([*short, "mixed_precision=true"]), tmp_path / "true", ALONE)
    assert yes.step.options.rounding is torch.bfloat16
    with pytest.raises(ConfigError, match="fp16 needs a GPU; use bf16"):
        trainer([*short, "mixed_precision=fp16"], tmp_path / "fp16")
    assert not (tmp_path / "fp16").exists()


def test_gradient_clipping_bounds_the_step(short, tmp_path):
    arguments = ["lr=1.0", "momentum=0.0", "weight_decay=0.0", "nesterov=false"]
    words = [*short, "hparams/optimizer=sgd", *(f"hparams.optimizer.{a}" for a in arguments), "hparams.iterations=1"]
    start = torch.cat(
        [p.flatten() for p in new_step(compose_train(words), torch.device("cpu")).directions.parameters()]
    )

    def moved(*extra):
        made = trainer([*words, *extra], tmp_path / str(len(extra)))
        return (torch.cat([p.flatten() for p in made.step.directions.parameters()]) - start).norm().item()

    free = moved()
    assert free > 2e-3
    assert moved("hparams.grad_clip_max_norm=0.001") == pytest.approx(1e-3, rel=1e-2)


def test_chunked_training_is_the_same_training(short, tmp_path):
    whole, chunked = trainer(short, tmp_path / "a"), trainer([*short, "hparams.chunk=5"], tmp_path / "b")
    assert chunked.history.loss == pytest.approx(whole.history.loss, abs=1e-5)


def test_schedule_is_stepped_every_iteration(short, tmp_path):
    made = trainer([*short, "hparams.scheduler.milestones=[4,8]", "hparams.scheduler.gamma=0.5"], tmp_path / "run")
    assert made.optimizer.param_groups[0]["lr"] == pytest.approx(0.001 / 4)


def test_nothing_is_saved_when_asked(short, tmp_path):
    folder = tmp_path / "run"
    assert run_train([*short, "save=false", "tensorboard=false", f"output_dir={folder}"])
    assert not folder.exists()


def test_a_loss_that_is_not_finite_stops_with_advice(short, tmp_path):
    made = Trainer(compose_train([*short, "tensorboard=false"]), tmp_path / "run", ALONE)
    with torch.no_grad():
        made.step.directions.weights[0].fill_(float("nan"))
    with pytest.raises(LatentCLRError, match=r"the loss became nan at step 1: lower .*; nothing was saved yet$"):
        made.fit()
    assert made.iteration == 0
    assert not (tmp_path / "run").exists()


def spoiled(words, folder, at, value) -> Trainer:
    """A trainer whose gradient is `value` in one place at the step after `at`; the loss is as ever."""
    made = Trainer(compose_train([*words, "tensorboard=false"]), folder, ALONE)

    def spoil(gradient):
        if made.iteration == at:
            gradient = gradient.clone()
            gradient[0, 0, 0] = value
        return gradient

    made.step.directions.weights[0].register_hook(spoil)
    return made


@pytest.mark.parametrize("extra", [[], ["hparams.grad_clip_max_norm=1.0"]])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_not_stepped(short, tmp_path, extra, value):
    """The tenth step, after which the run would be saved."""
    run = tmp_path / "run"
    made = spoiled([*short, *extra], run, 9, value)
    with pytest.raises(LatentCLRError, match=r"the gradient is not finite at step 10: lower .*the last good state is"):
        made.fit()
    assert made.iteration == 9
    assert all_finite(list(made.step.parameters()))
    kept = load_resume(run / "resume.pt")
    assert kept["iteration"] == 5
    again = Trainer(compose_train([*short, *extra, "tensorboard=false"]), run, ALONE)
    again.load_state(kept)  # which refuses numbers that are not finite
    assert again.fit()


def test_a_state_that_is_not_finite_is_not_saved(short, tmp_path):
    """A finite gradient whose square is not: Adam's second moment overflows while the loss looks well."""
    run = tmp_path / "run"
    made = spoiled(short, run, 7, 1e30)
    with pytest.raises(LatentCLRError, match=r"the state is not finite after step 10: lower .*the last good state is"):
        made.fit()
    kept = load_resume(run / "resume.pt")
    assert kept["iteration"] == load_checkpoint(run / "last.safetensors").iteration == 5
    with pytest.raises(CheckpointError, match=r"resume.pt holds numbers that are not finite: train anew: lower"):
        Trainer(made.config, run, ALONE).load_state(made.state())  # as older versions saved it


def test_a_scaled_gradient_that_overflows_is_skipped(short, tmp_path):
    """The scaler of fp16 works on the CPU too: it leaves such a step out and lowers its factor."""
    words = [*short, "hparams.scheduler.milestones=[12]", "hparams.scheduler.gamma=0.5"]
    made = spoiled(words, tmp_path / "run", 3, float("inf"))
    made.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    assert made.fit()
    assert made.scaler.get_scale() == 4.0
    assert made.optimizer.param_groups[0]["lr"] == 0.001  # 11 of 12 steps were done, so the schedule is not there yet
    hopeless = spoiled(words, tmp_path / "hopeless", 3, float("inf"))
    hopeless.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)  # nothing left to lower
    with pytest.raises(LatentCLRError, match="the gradient is not finite at step 4"):
        hopeless.fit()


def test_states_that_do_not_fit_are_refused(short, tmp_path):
    made = Trainer(compose_train([*short, "tensorboard=false"]), tmp_path / "run", ALONE)
    good = made.state()
    for key in good:
        if key in ("format", "config", "scaler", "threads", "weights_sha256"):  # read before, unused, told, or compared
            continue
        for bad in ({**good, key: "text"}, {k: v for k, v in good.items() if k != key}, {**good, key: [[1]]}):
            with pytest.raises(LatentCLRError, match="does not fit this run"):
                made.load_state(bad)


def test_a_resume_with_other_threads_says_that_it_is_not_exact(run, caplog, monkeypatch):
    assert load_resume(run / "resume.pt")["threads"] == torch.get_num_threads()
    assert run_train([f"checkpoint={run}", "hparams.iterations=14"])
    assert "CPU threads" not in caplog.text
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert run_train([f"checkpoint={run}", "hparams.iterations=16"])
    assert caplog.text.count("saved with 1 CPU threads and goes on with 7") == 1


def test_oriented_runs(short, tmp_path, refused, invoke):
    """The axes come with the checkpoint, follow from its weights alone, and leave the training as it is."""
    words = [*short, "model=linear"]
    plain_state = trainer(words, tmp_path / "plain").state()
    whole = trainer([*words, "model.orient=true"], tmp_path / "whole")
    state = whole.state()
    axes = state["directions"].pop("axes")
    assert equal(state["directions"], plain_state["directions"])
    assert state["loss"] == plain_state["loss"]
    assert torch.allclose(axes.norm(dim=1), torch.ones(4), atol=1e-5)
    config, checkpoint = open_run(tmp_path / "whole", ["checkpoint=last"], TrainConfig)
    assert config.model.orient
    assert torch.equal(checkpoint.directions.axes, axes)
    p = torch.randn(200, 24, generator=torch.Generator().manual_seed(0))
    assert ((checkpoint.directions(p) * axes[:, None]).sum(dim=-1) >= 0).all()

    parts = compose_train([*words, "model.orient=true", "hparams.iterations=6", "tensorboard=false"])
    first = Trainer(parts, tmp_path / "parts", ALONE)
    assert first.fit()
    again = Trainer(compose_train([*words, "model.orient=true", "tensorboard=false"]), tmp_path / "parts", ALONE)
    again.load_state(load_resume(tmp_path / "parts" / "resume.pt"))
    assert again.fit()
    assert equal(without_place(again.state())["directions"], whole.state()["directions"])
    assert again.history.held_out == whole.history.held_out

    line = refused(invoke("gen", tmp_path / "plain", "model.orient=true"))
    assert "model.orient=True: " in line
    assert "was trained with False" in line
    with pytest.raises(ConfigError, match=r"model.orient is an option of model=linear and model=nonlinear"):
        compose_train(["model=sefa", "model.orient=true"])
