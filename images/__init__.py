"""Container images of the services, made of the bundle that hosts get, and the stack they run in."""
