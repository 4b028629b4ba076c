"""Training without services: `python -m services.trainer --local lm|rl --config … --out …`, called by `tidal train`.

It does the same work as a job of a worker, but reports to a terminal. The option `--out` names the folder of the
experiment. If that folder already contains checkpoints, the training resumes from the newest one. Exit statuses:
0 completed, 1 failed, 3 stopped with a checkpoint.
"""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path

from common.artifacts import checkpoint_vocabulary
from common.config import DataConfig, LMConfig, get_settings, load_lm_config, load_rl_config
from common.config.from_checkpoint import load_from_checkpoint
from common.disk import MIB, DiskReserve
from common.errors import ConfigError, NotFoundError, TidalError
from common.logging import configure
from common.prediction.automatic_depth import resolve_depth
from common.prediction.calibration import read_calibration
from common.prediction.corpus_size import find_corpus_size
from common.prediction.estimate import Candidate, predict_training
from common.prediction.fine_tuning import fine_tunes
from common.prediction.machine import memory_limit, this_machine
from common.prediction.words import describe_prediction
from common.terminal import Terminal
from common.training.disk_hooks import DATA, EXPERIMENTS
from common.training.disk_wait import wait_for_disk
from common.training.hooks import Outcome, StopRequest, outcome_of
from common.training.local_hooks import LocalHooks
from services.trainer.calibration import calibrated
from tidal_client.vocabulary import CheckpointMode

EXIT_STOPPED = 3


def run_local(arguments: list[str]) -> int:
    """Parse the arguments, train, print the result and return the exit status."""
    options = _parser().parse_args(arguments)
    configure("trainer")
    console = Terminal(highlight=True)
    try:
        outcome = _train_lm(options, console) if options.kind == "lm" else _train_rl(options, console)
    except TidalError as error:
        console.print(f"{options.kind} training failed: {error.message}", style="red", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("ended at once; the same command resumes from the newest checkpoint on disk", style="red")
        return 1
    except Exception as error:
        from services.trainer.failures import classify_failure

        failure = classify_failure(error)
        if failure.code == "internal_error":
            raise
        console.print(f"{options.kind} training failed: {failure.message}", style="red", highlight=False)
        return 1
    console.print(f"{outcome.value}: {options.out}", style="green" if outcome is Outcome.COMPLETED else "yellow")
    return 0 if outcome is Outcome.COMPLETED else EXIT_STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.trainer", description=__doc__)
    parser.add_argument(
        "--local", action="store_true", required=True, help="train without a supervisor and other services"
    )
    parser.add_argument("kind", choices=("lm", "rl"), help="lm trains a language model, rl trains a controller")
    parser.add_argument(
        "--config", type=Path, help="YAML file with the configuration; without it, all values have their defaults"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the experiment")
    parser.add_argument(
        "--data",
        help="use this corpus instead of the configured one: builtin:stories, an uploaded dataset, a file, or a "
        "dataset on the Hugging Face Hub",
    )
    parser.add_argument("--data-dir", type=Path, help="folder of local corpora and token caches")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="lm: start from this checkpoint, with its whole state if its training has read the same text, otherwise "
        "with its weights (fine-tuning); rl: the language model that the controller steers",
    )
    parser.add_argument(
        "--fine-tune", action="store_true", help="lm: start only from the weights of --checkpoint, whatever the text"
    )
    parser.add_argument("--resume-from", type=Path, help="resume from this checkpoint folder of another training")
    parser.add_argument(
        "--no-resume", action="store_true", help="start from the beginning; fails if --out already contains checkpoints"
    )
    return parser


def _train_lm(options: argparse.Namespace, console: Terminal) -> Outcome:
    overrides = {"data": {"source": options.data, "validation_source": None}} if options.data else {}
    if options.config is None and options.checkpoint and (trained := _trained_config(options.checkpoint)) is not None:
        config = load_from_checkpoint(None, overrides, trained)
    else:
        config = load_lm_config(options.config, overrides)
    _refuse_existing_checkpoints(options)
    start = _resume_source(options)
    if start is not None and options.checkpoint:
        raise ConfigError("--checkpoint and --resume-from both set what training starts from; give only one of them")
    mode = CheckpointMode.CONTINUE if start is not None else CheckpointMode.AUTO
    if start is None and options.checkpoint:
        start = _existing(options.checkpoint)
        mode = CheckpointMode.FINE_TUNE if options.fine_tune else CheckpointMode.AUTO
    elif options.fine_tune:
        raise ConfigError("--fine-tune needs the weights to start from; give a checkpoint with --checkpoint")
    from common.data import resolve_local_files

    config = config.model_copy(update={"data": resolve_local_files(config.data, _data_dir(options))})
    config = resolve_depth(config, _data_dir(options))
    vocabulary = None if start is None else checkpoint_vocabulary(start)
    if vocabulary is not None:
        config = config.with_vocabulary(vocabulary.name, vocabulary.size)
    _print_prediction(config, options, console, start, mode)
    with _hooks(options, console, tensorboard=config.training.tensorboard) as hooks:
        request = wait_for_disk(hooks)
        if request is not None:
            return outcome_of(request)
        from services.trainer import experiments, language_model

        source = str(start.resolve()) if start else None
        experiments.write_metadata(options.out, "lm", source)
        experiments.write_lm_config(options.out, config)
        return language_model.train_language_model(
            config,
            options.out,
            hooks,
            data_dir=_data_dir(options),
            initial_checkpoint=start,
            checkpoint_mode=mode,
        )


def _print_prediction(
    config: LMConfig, options: argparse.Namespace, console: Terminal, start: Path | None, mode: CheckpointMode
) -> None:
    """Print what the training will need. Measure this machine first if that has not been done yet (about 15 s)."""
    data_dir, machine = _data_dir(options), this_machine()
    calibration = read_calibration(data_dir, machine)
    if calibration is None and get_settings().calibrate:
        console.print("measuring the speed of this machine once, for about 15 s …", style="dim", highlight=False)
        calibration = calibrated(data_dir)
    corpus = find_corpus_size(
        config.data,
        data_dir,
        bytes_per_token=calibration.bytes_per_token if calibration else None,
        builtin_bytes=calibration.builtin_bytes if calibration else None,
    )
    restored = _checkpoints(options.out)
    from_weights = False
    if start is not None and not restored:
        has_state = (start / "manifest.json").is_file()
        from_weights = fine_tunes(mode, config, _trained_config(start), has_state=has_state)
    if start is not None and not restored and not from_weights:
        restored = [start.resolve() / "manifest.json"]
    finished = [_finished_steps(path) for path in restored]
    candidate = Candidate(machine, calibration, memory_limit())
    predicted = predict_training(
        config, corpus, [candidate], first_step=max(finished, default=0), fine_tunes=from_weights
    )
    warnings = {text for found in predicted.machines for text in found.warnings}
    for line in describe_prediction(predicted):
        console.print(line, style="bold red" if line in warnings else "dim", highlight=False)


def _finished_steps(manifest: Path) -> int:
    """Return the number of steps of the training up to a checkpoint; 0 if its manifest is damaged, so that the training
    skips the checkpoint or fails with a clear error."""
    try:
        return int(json.loads(manifest.read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _trained_config(checkpoint: Path) -> LMConfig | None:
    """Return the configuration with which the model was trained, or None if its folder has none."""
    from services.trainer import experiments

    file = experiments.find_config_file(checkpoint.resolve())
    return None if file is None else load_lm_config(file)


def _train_rl(options: argparse.Namespace, console: Terminal) -> Outcome:
    if options.checkpoint is None:
        raise ConfigError(
            "training a controller needs a language model; give its file or checkpoint folder with --checkpoint"
        )
    config = load_rl_config(options.config)
    lm_checkpoint = _existing(options.checkpoint)
    _refuse_existing_checkpoints(options)
    start = _resume_source(options)
    with _hooks(options, console, tensorboard=config.tensorboard) as hooks:
        request = wait_for_disk(hooks)
        if request is not None:
            return outcome_of(request)
        from common.data import resolve_local_files
        from services.trainer import controller, experiments

        lm_config = experiments.find_config_file(lm_checkpoint)
        data = load_lm_config(lm_config).data if lm_config else DataConfig()
        if options.data:
            data = data.model_copy(update={"source": options.data, "sources": (), "validation_source": None})
        experiments.write_metadata(options.out, "rl", str(lm_checkpoint.resolve()))
        experiments.write_rl_config(options.out, config, lm_checkpoint)
        return controller.run_controller_training(
            config,
            lm_checkpoint,
            options.out,
            hooks,
            data=resolve_local_files(data, _data_dir(options)),
            data_dir=_data_dir(options),
            initial_checkpoint=start,
        )


def _hooks(options: argparse.Namespace, console: Terminal, *, tensorboard: bool) -> LocalHooks:
    attempts = [int(path.stem.split("-")[-2]) for path in (options.out / "metrics").glob("*-*-*.jsonl")]
    reserve = DiskReserve({EXPERIMENTS: options.out, DATA: _data_dir(options)}, get_settings().disk_reserve_mb * MIB)
    attempt = max(attempts, default=0) + 1
    hooks = LocalHooks(options.out, attempt=attempt, console=console, reserve=reserve, tensorboard=tensorboard)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: hooks.request(StopRequest.PAUSE))
    return hooks


def _data_dir(options: argparse.Namespace) -> Path:
    return options.data_dir if options.data_dir is not None else get_settings().data_dir


def _existing(path: Path) -> Path:
    if not path.exists():
        raise NotFoundError(f"{path}: no such checkpoint")
    return path


def _resume_source(options: argparse.Namespace) -> Path | None:
    """Return the checkpoint folder that `--resume-from` names; None without this option.

    If the folder `--out` already contains checkpoints, the training resumes from the newest of those instead.
    """
    if options.resume_from is None:
        return None
    start: Path = _existing(options.resume_from).resolve()
    if not (start / "manifest.json").is_file():
        raise ConfigError(f"--resume-from {start}: not a checkpoint folder (it has no manifest.json)")
    own = sorted(path.parent.resolve() for path in _checkpoints(options.out))
    if start in own[:-1]:
        raise ConfigError(
            f"--resume-from {start.name}: training in {options.out} resumes from the newest checkpoint {own[-1].name}; "
            "choose another --out to start from an earlier one"
        )
    return start


def _checkpoints(out: Path) -> list[Path]:
    """Return the manifests of the checkpoints in `out`.

    Folders whose names begin with a dot are temporary and not checkpoints.
    """
    return list((out / "checkpoints").glob("[!.]*/manifest.json"))


def _refuse_existing_checkpoints(options: argparse.Namespace) -> None:
    if options.no_resume and _checkpoints(options.out):
        raise ConfigError(
            f"--no-resume: {options.out} already has checkpoints; choose another --out or remove the folder"
        )
