"""What all stages of the tests share."""

from hypothesis import settings

pytest_plugins = ["tests.budget", "tests.long_runs"]

# How long an example may take says how busy the machine is, not whether the product is right.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
