"""The process of the ``uda`` command, and ``python -m uda``."""

from uda import signals


def main() -> None:
    """Listens to signals before anything else is imported, and until the last word is said."""
    signals.listen()
    try:
        from uda.cli import main as command

        command()
    finally:
        signals.leave()


if __name__ == "__main__":
    main()
