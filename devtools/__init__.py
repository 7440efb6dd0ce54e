"""What development has beside the service. The image holds none of it: only the command line may know it, lazily."""


class DevtoolError(RuntimeError):
    """A development tool cannot go on. The message is one line for the operator."""
