"""Host tool that stages, activates, confirms and rolls back generations; standard library only."""
