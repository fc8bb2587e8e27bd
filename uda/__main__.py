"""``python -m uda``."""

from uda.cli import main

if __name__ == "__main__":
    main()
