"""Runs `hybrid.fit` on toy parts in a process of its own: python run_toy.py CONFIG.json WORKDIR."""

import json
import sys


def main() -> None:
    """JAX is imported here, so that data workers, which re-import this file, stay light."""
    from ml_collections import ConfigDict

    import hybrid

    with open(sys.argv[1]) as file:
        hybrid.fit(ConfigDict(json.load(file)), sys.argv[2])


if __name__ == "__main__":
    main()
