"""Exists to say what a model of hearing is before it is trained: each parameter, with its source.

    python -m experiments.describe --config=experiments/configs/tones.py
    python -m experiments.describe --workdir=runs/tones --format=markdown

Value, unit, bounds, count, trained or frozen and by which pattern, meaning and source; for a run,
the values that it started from and those it has reached. No data are read for a config.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.launch import define_kwargs_flags, define_trust_flag, launch_config, run

FORMATS = ("table", "markdown", "json")
_UNLIMITED = 10_000  # columns
Tree = Any


def define_flags() -> None:
    """Defines the flags; not on import, so that other commands may use this module."""
    config_flags.DEFINE_config_file("config", None, "Name or file of a config.")
    flags.DEFINE_string("workdir", None, "Directory of a run, in place of a config.")
    flags.DEFINE_string("data_root", None, "Where the data lie, if not where the run had them.")
    flags.DEFINE_integer(
        "step", None, "Which checkpoint of the run; the newest by default.", lower_bound=0
    )
    flags.DEFINE_enum("format", "table", FORMATS, "How to print.")
    define_kwargs_flags()
    define_trust_flag()


def main(argv: Sequence[str]) -> None:
    """Describes and prints."""
    if len(argv) > 1:
        raise ValueError(f"describe takes flags only, got {' '.join(argv[1:])}: see --help")
    values = flags.FLAGS
    if (values.config is None) == (values.workdir is None):
        got = "neither" if values.config is None else "both"
        raise ValueError(f"describe takes one of --config and --workdir, got {got}: give one")
    # It reports at every start which accelerators this machine does not have.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    if values.workdir is None:
        description = describe_config(launch_config())
    else:
        description = describe_run(values.workdir, values.step, values.data_root, values.trust)
    if values.format == "table":
        print_description(description)
    elif values.format == "markdown":
        print(markdown(description))
    else:
        print(json.dumps(description, indent=2))


def describe_config(config: ConfigDict) -> dict[str, Any]:
    """Describes the physics of a config, with its initial values.

    Args:
        config: as `hybrid.build` takes it.

    Returns:
        `physics` (the contract of its frames), `training` (when and how fast it learns) and
        `parameters`, a dict for each leaf; JSON can hold it all.

    Raises:
        ValueError: a config whose physics cannot be built or whose overrides do not fit it.
    """
    import jax

    from hybrid.build import build_physics

    physics = build_physics(config)
    with jax.enable_x64(config.precision == "float64"):
        params = physics.init(jax.random.key(config.seed))
        return _describe(config, physics, params, jax.device_get(physics.physical(params)))


def describe_run(
    workdir: str,
    step: int | None = None,
    data_root: str | None = None,
    trusted: Sequence[str] = (),
) -> dict[str, Any]:
    """Describes the physics of a run: each parameter also has a `start`.

    Args:
        workdir: of the run.
        step: which checkpoint; the newest if None.
        data_root: where the data lie now, if not where the run had them.
        trusted: see `hybrid.load`.
    """
    import jax

    import hybrid
    from hybrid.inspection import physical_values

    loaded = hybrid.load(workdir, step, data_root, trusted)
    start, now = physical_values(loaded)
    with jax.enable_x64(loaded.config.precision == "float64"):
        params = loaded.state.physics.params
        description = _describe(loaded.config, loaded.physics, params, now, start)
    return description | {"step": int(loaded.state.step)}


def _describe(
    config: ConfigDict, physics: Any, params: Tree, values: Tree, start: Tree | None = None
) -> dict[str, Any]:
    from hybrid.optimizers import parse_overrides
    from hybrid.paths import named_leaves

    optimizer = config.physics_optimizer
    specs, started = physics.specs(), named_leaves(start)
    try:
        multipliers = parse_overrides(params, optimizer.overrides)
    except ValueError as error:
        raise ValueError(f"config.physics_optimizer.{error}") from error
    begins = optimizer.start_step < config.num_steps and optimizer.learning_rate > 0
    rows = []
    for (name, spec), value in zip(
        named_leaves(specs).items(), named_leaves(values).values(), strict=True
    ):
        row = {"name": name, "unit": spec.unit, "low": float(spec.low), "high": float(spec.high)}
        row |= {"count": int(np.size(value)), "shape": list(np.shape(value))}
        row |= {"value": _summary(value)}
        if name in started:
            row |= {"start": _summary(started[name])}
        row |= {
            "trained": begins and bool(multipliers[name]),
            "multiplier": multipliers[name],
            "decided_by": deciding_pattern(name, optimizer.overrides),
        }
        for field in ("transform", "doc", "source"):
            row[field] = getattr(spec, field, "")
        rows.append(row)
    training = {"num_steps": config.num_steps, "begins": begins}
    for field in ("name", "learning_rate", "schedule", "start_step", "every"):
        training[field] = optimizer[field]
    contract = {"target": config.physics.target} | frame_contract(physics, params)
    return {"physics": contract, "training": training, "parameters": rows}


def deciding_pattern(name: str, overrides: Any) -> str | None:
    """The pattern of an optimizer's overrides that decides about a parameter; None without any."""
    pairs = overrides.items() if isinstance(overrides, Mapping) else overrides
    return next((pattern for pattern, _ in pairs if re.fullmatch(pattern, name)), None)


def frame_contract(physics: Any, params: Tree) -> dict[str, Any]:
    """What goes in and what comes out: rates, hop, shape of the features of 1 s, frequencies.

    Args:
        physics: a `PhysicsModule`.
        params: its parameters.

    Returns:
        A dict; `features_of_1_s` is None for what does not take audio (a synthesiser), and
        `frequency_range_hz` where the channels have no frequencies.
    """
    import jax
    import jax.numpy as jnp

    rate, hop = float(physics.sample_rate_hz), int(physics.hop_samples)
    ears = int(getattr(physics, "n_ears", 1))
    shape = (1, round(rate), ears) if ears > 1 else (1, round(rate))
    audio = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
    try:
        features = list(jax.eval_shape(physics.apply, params, audio)[0].shape)
    except (TypeError, ValueError, LookupError, AttributeError):
        features = None
    contract = {"sample_rate_hz": rate, "hop_samples": hop, "hop_s": hop / rate, "ears": ears}
    contract |= {"features_of_1_s": features, "channels": features[-1] if features else None}
    frequencies = None
    if hasattr(physics, "channel_frequencies_hz"):
        frequencies = physics.channel_frequencies_hz(params)
    if frequencies is not None:
        frequencies = [float(np.min(frequencies)), float(np.max(frequencies))]
    contract |= {"frequency_range_hz": frequencies, "causal": bool(physics.causal)}
    return contract | {"full_scale_db_spl": getattr(physics, "full_scale_db_spl", None)}


def headlines(description: Mapping[str, Any]) -> Iterator[str]:
    """The lines above the table: the frame contract, and what of it is trained."""
    physics, training = description["physics"], description["training"]
    step = f", step {description['step']}" if "step" in description else ""
    yield f"{physics['target']}{step}"
    rate, hop_s = physics["sample_rate_hz"], physics["hop_s"]
    each = "a frame for each sample"
    if physics["hop_samples"] > 1:
        each = f"a frame each {physics['hop_samples']} samples ({_rounded(1000 * hop_s)} ms)"
    ears = f", {physics['ears']} ears" if physics["ears"] > 1 else ""
    yield f"audio:     {rate:g} Hz{ears}, {each}, {'causal' if physics['causal'] else 'not causal'}"
    if physics["full_scale_db_spl"] is not None:
        yield f"level:     a peak of 1.0 is {physics['full_scale_db_spl']:g} dB SPL"
    shape = physics["features_of_1_s"]
    if shape is None:
        yield "features:  it does not take audio alone, so that its outputs are not shown"
    else:
        axes = "[frames, ears, channels]" if len(shape) == 4 else "[frames, channels]"
        span = physics["frequency_range_hz"]
        between = f", from {span[0]:.0f} to {span[1]:.0f} Hz" if span else ""
        yield f"features:  {axes} = {shape[1:]} of 1 s{between}"
    rows = description["parameters"]
    trained = [row for row in rows if row["trained"]]
    numbers = sum(row["count"] for row in trained), sum(row["count"] for row in rows)
    yield (
        f"trained:   {len(trained)} of {len(rows)} parameters, {numbers[0]} of {numbers[1]} numbers"
    )
    if not training["begins"]:
        yield (
            f"optimizer: never begins (start_step {training['start_step']} of "
            f"{training['num_steps']} steps, learning rate {training['learning_rate']:g})"
        )
        return
    every = f", each {training['every']} steps" if training["every"] > 1 else ""
    yield (
        f"optimizer: {training['name']}, learning rate {training['learning_rate']:g} "
        f"({training['schedule']}), from step {training['start_step']} of "
        f"{training['num_steps']}{every}"
    )


def table_rows(description: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table as text: its head, and a row of cells for each parameter."""
    began = any("start" in row for row in description["parameters"])
    head = ["parameter", *(["start", "now"] if began else ["value"]), "unit", "bounds", "count"]
    head += ["trained", "transform", "meaning", "source"]
    body = []
    for row in description["parameters"]:
        shape = "x".join(map(str, row["shape"]))
        count = f"{row['count']} ({shape})" if len(row["shape"]) > 1 else str(row["count"])
        body.append(
            [
                row["name"],
                *([_value_text(row["start"])] if began else []),
                _value_text(row["value"]),
                row["unit"],
                f"{_rounded(row['low'])} to {_rounded(row['high'])}",
                count,
                _trained_text(row, description["training"]["begins"]),
                row["transform"],
                row["doc"],
                row["source"],
            ]
        )
    return head, body


def print_description(description: Mapping[str, Any], console: Any = None) -> None:
    """Prints two tables, numbers and words. Where there is no terminal, no line is folded.

    Args:
        description: as `describe_config` returns it.
        console: a `rich.console.Console`; standard output by default.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    if not console.is_terminal:
        console.width = _UNLIMITED
    for line in headlines(description):
        console.print(Text(line))
    head, body = table_rows(description)
    frozen = [not row["trained"] for row in description["parameters"]]
    console.print(_table(head[:-2], [cells[:-2] for cells in body], frozen))
    words = [[cells[0], *cells[-2:]] for cells in body]
    console.print(_table([head[0], *head[-2:]], words, frozen))


def _table(head: Sequence[str], body: Sequence[Sequence[str]], frozen: Sequence[bool]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    for name in head:
        table.add_column(name, no_wrap=name == "parameter", overflow="fold")
    for cells, dim in zip(body, frozen, strict=True):
        # As `Text`: patterns hold square brackets, which in a string are markup.
        table.add_row(*map(Text, cells), style="dim" if dim else None)
    return table


def markdown(description: Mapping[str, Any]) -> str:
    """The same as Markdown, for a notebook or the appendix of a paper."""
    head, body = table_rows(description)
    lines = [f"- {re.sub(' +', ' ', line)}" for line in headlines(description)]
    lines += ["", _markdown_row(head), _markdown_row(["---"] * len(head))]
    return "\n".join(lines + [_markdown_row(cells) for cells in body])


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _summary(value: Any) -> dict[str, Any]:
    numbers = np.asarray(value, np.float64)
    ends = {"min": numbers.min(), "max": numbers.max(), "mean": numbers.mean()}
    return {name: float(end) for name, end in ends.items()} | {"values": numbers.tolist()}


def _value_text(summary: Mapping[str, Any]) -> str:
    low, high = _rounded(summary["min"]), _rounded(summary["max"])
    numbers = np.ravel(summary["values"])
    if low == high:
        return low if numbers.size == 1 else f"all {low}"
    if numbers.size <= 4:
        return ", ".join(map(_rounded, numbers))
    return f"{low} to {high}, mean {_rounded(summary['mean'])}"


def _trained_text(row: Mapping[str, Any], begins: bool) -> str:
    pattern = f" ({row['decided_by']})" if row["decided_by"] is not None else ""
    if not row["multiplier"]:
        return f"frozen{pattern}"
    if not begins:
        return "frozen (never begins)"
    return "yes" if row["multiplier"] == 1 else f"yes, x{row['multiplier']:g}{pattern}"


def _rounded(number: float) -> str:
    return f"{number:.4g}"


def app() -> None:
    """Console script `hybrid-describe`."""
    define_flags()
    run(main)


if __name__ == "__main__":
    app()
