"""Which checkpoints of a run stay, and which go when a new one is there."""

from collections.abc import Collection


def to_keep(
    steps: Collection[int], *, newest: int, every: int = 0, protected: Collection[int] = ()
) -> set[int]:
    """Returns the steps whose checkpoints stay.

    Args:
        steps: of all checkpoints.
        newest: how many of the last stay, >= 1.
        every: those of every so many steps stay for ever; 0: none do.
        protected: stay whatever their age, such as the best one.
    """
    last = set(sorted(steps)[-newest:])
    milestones = {step for step in steps if every and step and step % every == 0}
    return last | milestones | (set(steps) & set(protected))
