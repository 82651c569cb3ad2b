# SPDX-License-Identifier: Apache-2.0
"""The ``styleavatar`` command. Services and client add theirs by entry points."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated

import typer

import styleavatar_core
from styleavatar_core.cli.bench import bench
from styleavatar_core.cli.capture_report import capture_report
from styleavatar_core.cli.distill import distill
from styleavatar_core.cli.evaluate import evaluate
from styleavatar_core.cli.export import export
from styleavatar_core.cli.import_faceverse import import_faceverse
from styleavatar_core.cli.import_official import import_official
from styleavatar_core.cli.pretrain import pretrain
from styleavatar_core.cli.sample_clip import sample_clip
from styleavatar_core.cli.track import track
from styleavatar_core.cli.train import train
from styleavatar_core.errors import StyleAvatarError, TrainingCanceled

if TYPE_CHECKING:
    # Typer's groups are made of its own copy of click, which it offers to nobody by another name.
    from typer._click import Command, Context

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "styleavatar.commands"
INPUT_ERROR_CODE = 2
INTERRUPTED_CODE = 130
_INSTALL = "run `make install`, or install styleavatar with all its extras"
# In the order in which a newcomer meets them.
_ORDER = (
    *("demo", "serve", "sample-clip", "capture-report", "track", "create", "drive"),
    *("train", "pretrain", "distill", "export", "evaluate"),
)


class _Commands(typer.core.TyperGroup):
    """Lists commands in the order of their use, and loads those of entry points when asked for."""

    def list_commands(self, ctx: Context) -> list[str]:
        """Returns the names of all commands."""
        names = {*super().list_commands(ctx), *entry_points(group=ENTRY_POINT_GROUP).names}
        return sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Returns a command by name."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for point in entry_points(group=ENTRY_POINT_GROUP, name=cmd_name):
            return _load(point)
        return None


def build_app() -> typer.Typer:
    """Puts the commands together; those of installed entry points are found when asked for."""
    app = typer.Typer(
        cls=_Commands,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        help="A portrait video in, a live photo-real avatar out, driven frame by frame over gRPC."
        "\n\n[bold]create[/bold] and [bold]drive[/bold] talk to the services that "
        "[bold]serve[/bold] starts; [bold]demo[/bold] shows everything once; "
        "all others work on their own.",
    )
    app.callback()(_options)
    own: dict[str, Callable[..., None]] = {
        "sample-clip": sample_clip,
        "track": track,
        "train": train,
        "export": export,
    }
    own |= {"evaluate": evaluate, "import-official": import_official}
    own |= {"import-faceverse": import_faceverse, "bench": bench}
    own |= {"capture-report": capture_report, "pretrain": pretrain, "distill": distill}
    for name, command in own.items():
        app.command(name)(command)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"styleavatar {styleavatar_core.__version__}")
        raise typer.Exit


def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version."),
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )


def _load(point: EntryPoint) -> Command:
    """Makes a command of an entry point; one whose package is missing says so when it is run."""
    single = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
    )
    try:
        single.command(point.name)(point.load())
    except (ImportError, AttributeError) as error:
        logger.debug("command not available", extra={"command": point.name}, exc_info=True)
        reason = str(error)

        def unavailable() -> None:
            raise StyleAvatarError(f"'{point.name}' cannot be loaded ({reason}); {_INSTALL}")

        single.command(point.name, help="Not installed.")(unavailable)
    return typer.main.get_command(single)


def main() -> None:
    """Runs the command line; errors made on purpose become one sentence and exit code 2."""
    try:
        build_app()()
    except StyleAvatarError as error:
        message = str(error)
        sys.stderr.write(f"styleavatar: {message[:1].lower()}{message[1:].rstrip('.')}.\n")
        sys.exit(INPUT_ERROR_CODE)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"styleavatar: the package '{error.name}' is not here; {_INSTALL}.\n")
        sys.exit(INPUT_ERROR_CODE)
    except OSError as error:  # no room, no rights, no such folder: the system says which
        told = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
        sys.stderr.write(f"styleavatar: {told or error}.\n")
        sys.exit(INPUT_ERROR_CODE)
    except (TrainingCanceled, KeyboardInterrupt) as stop:
        sys.stderr.write(f"styleavatar: {str(stop) or 'stopped'}.\n")
        sys.exit(INTERRUPTED_CODE)


if __name__ == "__main__":
    main()
