"""What is raised where an agent's files cannot be used."""


class TeacherError(ValueError):
    """An agent's files cannot be used as a teacher; the message says why and what to do."""


class TeacherNotFoundError(TeacherError, FileNotFoundError):
    """There are no such files."""
