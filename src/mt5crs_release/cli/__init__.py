"""The command line of the release tool."""
