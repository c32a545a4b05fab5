"""The configuration that every run has, and how command-line values are laid over it."""

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

PARTS = ("physics", "learner", "task", "data")
NONFINITE_POLICIES = ("stop", "skip", "roll_back")


def default_config() -> ConfigDict:
    """Returns the fields of every run; a config file fills in targets and numbers.

    `*.target` is an import path `package.module:Name`, `*.kwargs` what it is built with. An
    optimizer's `overrides` are pairs of a regular expression over dotted parameter names and a
    multiplier of the learning rate, or None to freeze; the first match wins. `start_step` keeps a
    branch frozen until then; `every` updates it at every so many steps only.

    `nonfinite` says what happens when a loss or gradient is NaN or infinite: "stop", "skip" the
    step, or "roll_back" to the last checkpoint that was due while the data go on; the latter two up
    to `limit` times a run. Of so many as `keep` the origin is searched and the batch saved.
    `data.timeout_s` is how long the data may keep a run waiting.

    Of the checkpoints the newest `keep_checkpoints` stay, those of every
    `checkpoint_keep_every_steps` (0: none), and the one that is best by `checkpoint_best_metric`, a
    metric of the evaluations ("": none), which is written when it is found. `init_from` is the work
    directory of another run, of whose leaves those are taken that `init_leaves` matches.
    """
    return ConfigDict(
        {
            "seed": 0,
            "num_steps": 1000,
            "batch_size": 32,
            "precision": "float32",
            "log_every_steps": 20,
            "eval_every_steps": 200,
            "checkpoint_every_steps": 200,
            "keep_checkpoints": 3,
            "checkpoint_keep_every_steps": 0,
            "checkpoint_best_metric": "",
            "checkpoint_best_mode": "min",
            "early_stop_evals": 0,
            "init_from": "",
            "init_leaves": ".*",
            "physics": {"target": "physics.carfac:Carfac", "kwargs": {}},
            "learner": {"target": "learners:ConvNet", "kwargs": {}},
            "task": {"target": "hybrid.tasks:Classification", "kwargs": {}},
            "data": {
                "target": "data.tones:SpokenTones",
                "root": "",
                "kwargs": {},
                "num_workers": 2,
                "timeout_s": 120.0,
            },
            "physics_optimizer": _optimizer_config(1e-3),
            "learner_optimizer": _optimizer_config(1e-3),
            "nonfinite": {"policy": "stop", "limit": 10, "keep": 3},
        }
    )


def _optimizer_config(learning_rate: float) -> dict[str, Any]:
    return {
        "name": "adam",
        "learning_rate": learning_rate,
        "schedule": "cosine",
        "warmup_steps": 0,
        "clip_norm": 1.0,
        "weight_decay": 0.0,
        "start_step": 0,
        "every": 1,
        "overrides": (),
    }


def apply_kwargs(
    config: ConfigDict,
    given: Mapping[str, str | None],
    original_targets: Mapping[str, str],
) -> ConfigDict:
    """Lays `--physics_kwargs` and its like over a config, clearing those of a replaced target.

    Args:
        config: the config after `--config.FIELD=VALUE`.
        given: part name to a JSON object, or None where the flag is absent.
        original_targets: part name to the target in the config file. A part whose target differs
            loses the file's kwargs, which belonged to the other class.

    Returns:
        A new config.

    Raises:
        ValueError: a flag that is not a JSON object.
    """
    fields = config.to_dict()
    for part in PARTS:
        if fields[part]["target"] != original_targets.get(part, fields[part]["target"]):
            fields[part]["kwargs"] = {}
        if text := given.get(part):
            new = _nested(_json_object(f"--{part}_kwargs", text))
            fields[part]["kwargs"] = fields[part]["kwargs"] | new
    return ConfigDict(fields)


def _json_object(flag: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{flag} must be a JSON object such as '{{\"bands\": 8}}', got {text!r}: {error}"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(
            f"{flag} must be a JSON object such as '{{\"bands\": 8}}', got {text!r}, "
            f"a {type(value).__name__}"
        )
    return value


def _nested(value: Any) -> Any:
    """Dotted names, which a ConfigDict refuses, as nested ones: {"a.b": 1} -> {"a": {"b": 1}}."""
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for name, item in value.items():
        *groups, last = name.split(".")
        node = result
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = _nested(item)
    return result


def check_config(config: ConfigDict) -> None:
    """Checks that a config has every field of a run, no others, and sensible values.

    Tasks may add fields below `*.kwargs` only.

    Raises:
        ValueError: the field, the value met and what would fit (nearest names for unknown fields).
    """
    _check_fields(config.to_dict(), default_config().to_dict(), "config")
    for field in (
        "num_steps",
        "batch_size",
        "log_every_steps",
        "physics_optimizer.every",
        "learner_optimizer.every",
        "nonfinite.limit",
    ):
        _at_least(config, field, 1)
    for field in (
        "seed",
        "data.num_workers",
        "physics_optimizer.start_step",
        "physics_optimizer.warmup_steps",
        "learner_optimizer.start_step",
        "learner_optimizer.warmup_steps",
        "eval_every_steps",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "checkpoint_keep_every_steps",
        "early_stop_evals",
        "nonfinite.keep",
    ):
        _at_least(config, field, 0)
    if config.precision not in ("float32", "float64"):
        raise ValueError(
            f"config.precision must be 'float32' or 'float64', got {config.precision!r}"
        )
    if config.keep_checkpoints < 1:
        raise ValueError("config.keep_checkpoints must be at least 1: a run resumes from the last")
    _check_retention(config)
    if config.nonfinite.policy not in NONFINITE_POLICIES:
        raise ValueError(
            f"config.nonfinite.policy must be one of {', '.join(NONFINITE_POLICIES)}, got "
            f"{config.nonfinite.policy!r}"
        )
    timeout_s = config.data.timeout_s
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not timeout_s > 0:
        raise ValueError(
            f"config.data.timeout_s must be a number of seconds > 0, got {timeout_s!r}"
        )
    try:
        re.compile(config.init_leaves)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"config.init_leaves must be a regular expression, got {config.init_leaves!r}: {error}"
        ) from error


def _check_retention(config: ConfigDict) -> None:
    if config.checkpoint_best_mode not in ("min", "max"):
        raise ValueError(
            "config.checkpoint_best_mode must be 'min' (a loss) or 'max' (an accuracy), got "
            f"{config.checkpoint_best_mode!r}"
        )
    every, saved = config.checkpoint_keep_every_steps, config.checkpoint_every_steps
    if every and (not saved or every % saved):
        raise ValueError(
            "config.checkpoint_keep_every_steps must be a multiple of checkpoint_every_steps, at "
            f"which there are checkpoints to keep; got {every}, and {saved}"
        )


def complete_config(config: ConfigDict) -> ConfigDict:
    """Returns a config of an earlier release with the fields that have come since, by default."""
    return ConfigDict(_completed(config.to_dict(), default_config().to_dict()))


def _completed(got: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(got)
    for name, value in known.items():
        if name not in got:
            result[name] = value
        elif isinstance(value, dict) and name != "kwargs" and isinstance(got[name], Mapping):
            result[name] = _completed(got[name], value)
    return result


def _at_least(config: ConfigDict, field: str, low: int) -> None:
    value: Any = config
    for name in field.split("."):
        value = value[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"config.{field} must be an integer >= {low}, got {value!r}")


def _check_fields(got: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    unknown = [name for name in got if name not in known]
    if unknown:
        raise ValueError(unknown_name_message(f"{where}.{unknown[0]}", unknown[0], list(known)))
    missing = [name for name in known if name not in got]
    if missing:
        raise ValueError(
            f"{where} lacks the field {missing[0]!r}: start from hybrid.config.default_config()"
        )
    for name, value in known.items():
        if isinstance(value, dict):
            if not isinstance(got[name], Mapping):
                raise ValueError(f"{where}.{name} must hold fields, got {got[name]!r}")
            if name != "kwargs":
                _check_fields(got[name], value, f"{where}.{name}")
        elif isinstance(value, str) and not isinstance(got[name], str):
            if name == "root" and got[name] is None:
                continue
            raise ValueError(f"{where}.{name} must be a text, got {got[name]!r}")


def unknown_name_message(path: str, name: str, known: list[str]) -> str:
    """Says that a field is unknown, and which are near."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{path} is not a known field: {hint}Known: {', '.join(sorted(known))}"
