"""``python -m saver_conformance``: the command line."""

from saver_conformance.cli import main

if __name__ == "__main__":
    main()
