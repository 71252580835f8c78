"""What all stages of the tests share."""

import signal

from hypothesis import settings

pytest_plugins = ["tests.budget", "tests.long_runs"]

# A shell's background job ignores Ctrl-C, and so would everything that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example may take says how busy the machine is, not whether the product is right.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
