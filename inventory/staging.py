"""pyinfra inventory of staging: exactly what Ansible reads from staging.yml."""

from deploy.inventory import hosts_of

staging = hosts_of(__file__)
