"""The command: it handles Ctrl-C before it imports what takes longer."""

from copier_mlops import _interruption


def main() -> None:
    """Run the command that the arguments name."""
    _interruption.handle()
    try:
        from copier_mlops import cli
    except KeyboardInterrupt:
        _interruption.end(_interruption.STOPPED)
    cli.main()


if __name__ == "__main__":
    main()
