"""pyinfra reads this first, before an inventory, which it would run as Python whatever it is."""

from deploy.operations.command_line import refuse_what_pyinfra_stumbles_over

refuse_what_pyinfra_stumbles_over()
