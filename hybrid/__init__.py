"""The loop: two parameter trees, two optimizers, one scalar; resumable, logged, checked."""

from hybrid.build import BuildError, Experiment, build
from hybrid.config import default_config
from hybrid.evaluation import evaluate
from hybrid.fit import fit
from hybrid.inspection import moved_parameters, with_initial_physics
from hybrid.load import Run, load
from hybrid.optimizers import build_optimizer
from hybrid.signals import RunStopped
from hybrid.state import Branch, HybridState
from hybrid.step import make_step
from hybrid.tasks import Classification, Task
from hybrid.watch import NonFiniteError

__all__ = [
    "Branch",
    "BuildError",
    "Classification",
    "Experiment",
    "HybridState",
    "NonFiniteError",
    "Run",
    "RunStopped",
    "Task",
    "build",
    "build_optimizer",
    "default_config",
    "evaluate",
    "fit",
    "load",
    "make_step",
    "moved_parameters",
    "with_initial_physics",
]
