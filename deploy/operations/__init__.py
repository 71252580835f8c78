"""What pyinfra does, in the order of deploy.py and rollback.py; the only package that imports pyinfra."""
