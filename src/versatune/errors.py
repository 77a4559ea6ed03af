"""The one exception type meant for people."""


class VersatuneError(Exception):
    """A mistake in the input or a failure of the machine, reported in one plain message.

    The message says what was given, where it stands (file, line, key) and what to do. The
    command line prints it without a traceback; anything else that escapes is a bug of ours.
    """
