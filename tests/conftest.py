"""What all stages of the tests share."""

pytest_plugins = ["tests.budget", "tests.long_runs"]
