"""The command `kdc`, which `python -m kdc_core` is too."""

from kdc_core.commands.ending import end_by_signal


def main() -> None:
    """Run the command that this process was started with."""
    end_by_signal()  # before imports that take a while
    from kdc_core import cli

    cli.main()


if __name__ == "__main__":
    main()
