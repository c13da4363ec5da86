"""`python -m assay`: the same program as `assay`."""

from assay.cli.main import main

if __name__ == "__main__":
    main()
