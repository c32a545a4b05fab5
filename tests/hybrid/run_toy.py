"""Runs `hybrid.fit` on toy parts in a process of its own: python run_toy.py CONFIG.json WORKDIR."""

import json
import pathlib
import sys


def main() -> None:
    """JAX is imported here, so that data workers, which re-import this file, stay light."""
    from ml_collections import ConfigDict

    import hybrid

    config = json.loads(pathlib.Path(sys.argv[1]).read_text())
    hybrid.fit(ConfigDict(config), sys.argv[2])


if __name__ == "__main__":
    main()
