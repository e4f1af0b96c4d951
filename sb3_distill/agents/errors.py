"""What is raised where an agent's files cannot be used."""


class AgentError(ValueError):
    """An agent cannot be used, whether as teacher or as student; the message says why and what to do."""


class AgentNotFoundError(AgentError, FileNotFoundError):
    """There are no such files."""
