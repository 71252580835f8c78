"""`python -m mt5crs.wine_terminal`: what the unit `mt5crs-terminal` runs."""

from mt5crs.wine_terminal.program import main

if __name__ == "__main__":
    raise SystemExit(main())
