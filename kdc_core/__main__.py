"""`python -m kdc_core` is the `kdc` command."""

from kdc_core.cli import main

main()
