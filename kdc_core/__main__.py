"""The command `kdc`, which `python -m kdc_core` is too."""

import os
import sys

from kdc_core.stopping import exit_on_signal, raise_on_signal


def main() -> None:
    """Run the command that this process was started with."""
    while (stream := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # else a file that is written would take the place of a closed stream
    os.close(stream)
    raise_on_signal()  # before imports that take a while
    try:
        from kdc_core.cli import run

        sys.exit(run(sys.argv[1:]))
    finally:
        exit_on_signal()


if __name__ == "__main__":
    main()
