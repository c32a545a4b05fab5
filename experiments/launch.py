"""What every entry point shares: finding configs, flags for kwargs, errors a person can read."""

import importlib.util
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from experiments.stopping import GRACE_S, stoppable

CONFIG_FOLDER = pathlib.Path(__file__).parent / "configs"
# A command that is run with -m is called __main__.
PACKAGES = ("hybrid", "data", "physics", "learners", "experiments", "__main__")
PARTS = ("physics", "learner", "task", "data")


def define_kwargs_flags() -> None:
    """Defines `--physics_kwargs` and its like: JSON objects laid over `config.PART.kwargs`."""
    for part in PARTS:
        flags.DEFINE_string(
            f"{part}_kwargs", None, f"JSON object of arguments for config.{part}.target."
        )


def define_trust_flag() -> None:
    """Defines `--trust`, for commands that open a run: whose code it may name."""
    flags.DEFINE_list(
        "trust",
        [],
        "Packages whose code the run may use besides this library's, such as my_ears,my_nets. Do "
        "not name what came along with somebody else's run.",
    )


def launch_config() -> ConfigDict:
    """Returns the config of the command line: file, then fields, then kwargs.

    Raises:
        ValueError: kwargs that are not JSON objects.
    """
    from hybrid.config import apply_kwargs

    flag: Any = flags.FLAGS["config"]
    original = _load_file(config_flags.get_config_filename(flag))
    return apply_kwargs(
        flag.value,
        {part: flags.FLAGS[f"{part}_kwargs"].value for part in PARTS},
        {part: original[part].target for part in PARTS},
    )


def run(main: Callable[[Sequence[str]], Any]) -> None:
    """`absl.app.run` with config names looked up, unknown fields explained, errors kept short."""
    with stoppable(_grace_s):
        app.run(lambda argv: _guard(main, argv), argv=sys.argv, flags_parser=_parse_flags)


def _grace_s() -> float:
    value = flags.FLAGS["grace_s"].value if "grace_s" in flags.FLAGS else None
    return GRACE_S if value is None else float(value)


def _guard(main: Callable[[Sequence[str]], Any], argv: Sequence[str]) -> Any:
    """Errors that speak to the person who launched are shown without a stack of calls."""
    try:
        return main(argv)
    except (ValueError, FloatingPointError, OSError, RuntimeError) as error:
        # What our own code did not phrase is a defect: its stack is the message.
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        raised_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
        if raised_in.partition(".")[0] not in PACKAGES:
            raise
        sys.exit("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]))


def _parse_flags(argv: list[str]) -> list[str]:
    # `--config X` is `--config=X`; fields of the config are looked up below in the second form.
    argv = list(argv)
    while "--config" in argv[:-1]:
        place = argv.index("--config")
        argv[place : place + 2] = [f"--config={argv[place + 1]}"]
    argv = [_find_config(argument) for argument in argv]
    config_flag = next((a for a in argv if a.startswith("--config=")), None)
    fields = [a for a in argv if a.startswith("--config.")]
    if fields and config_flag:
        config = _load_file(config_flag.removeprefix("--config="))
        for argument in fields:
            _check_field(config, argument)
    # The config flag reads overrides from sys.argv, so both must be the same.
    sys.argv = list(argv)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {error}\nRun with --help for the flags.")
    except OSError as error:
        sys.exit(f"error: {error}")


def _find_config(argument: str) -> str:
    """Turns `--config=tones`, or a path that does not exist here, into an installed config."""
    if not argument.startswith("--config="):
        return argument
    path = pathlib.Path(argument.removeprefix("--config="))
    if path.exists():
        return argument
    installed = CONFIG_FOLDER / f"{path.stem}.py"
    asked = str(path) == path.stem or path.parts[:-1] == ("experiments", "configs")
    if asked and installed.exists():
        return f"--config={installed}"
    names = sorted(p.stem for p in CONFIG_FOLDER.glob("*.py") if p.stem != "__init__")
    sys.exit(
        f"error: --config must name a file or one of {', '.join(names)}; {path} does not exist"
    )


def _check_field(config: ConfigDict, argument: str) -> None:
    from hybrid.config import unknown_name_message

    parts = argument.removeprefix("--").partition("=")[0].split(".")[1:]
    node: Any = config
    for depth, name in enumerate(parts):
        path = ".".join(["config", *parts[: depth + 1]])
        if not isinstance(node, ConfigDict) or name not in node:
            known = list(node.keys()) if isinstance(node, ConfigDict) else []
            message = unknown_name_message(path, name, known)
            if depth and parts[depth - 1] == "kwargs":
                message += f". New arguments are given as --{parts[0]}_kwargs='{{\"{name}\": ...}}'"
            sys.exit(f"error: {message}")
        node = node[name]


def _load_file(path: str) -> ConfigDict:
    spec = importlib.util.spec_from_file_location("_launched_config", path)
    if spec is None or spec.loader is None:
        sys.exit(f"error: --config must be a Python file with get_config(), got {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()
