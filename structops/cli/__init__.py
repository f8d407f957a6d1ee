"""The ``structops`` command: one file per subcommand, each with a function ``command``."""

from __future__ import annotations

import importlib
import sys

COMMANDS = ("info", "verify", "bench", "gpu-cost", "demo")


def main() -> None:
    try:
        import rich  # noqa: F401
        import typer
    except ImportError as error:
        sys.exit(f"structops: the command line needs {error.name}: pip install 'structops[cli]'")
    app = typer.Typer(
        help="Fast, exact kernels for structured prediction in vision: check them, measure them, see them work.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    for name in COMMANDS:
        module = importlib.import_module(f"structops.cli.{name.replace('-', '_')}")
        app.command(name)(module.command)
    app()
