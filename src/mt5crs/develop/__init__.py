"""For people who write strategies: a project, a check, a run on their own machine (`mt5crs strategy`)."""
