"""The command: it handles Ctrl-C before it imports what takes longer."""

from . import interruption


def main() -> None:
    """Run the command that the arguments name."""
    interruption.handle()
    try:
        from . import cli
    except KeyboardInterrupt:
        interruption.end(interruption.STOPPED)
    cli.main()


if __name__ == "__main__":
    main()
