class PipelineError(RuntimeError):
    """The pipeline cannot go on; the text names cause and remedy in one sentence."""
