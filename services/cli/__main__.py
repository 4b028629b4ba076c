"""`python -m services.cli` is the command `tidal`."""

from services.cli.main import main

if __name__ == "__main__":
    main()
