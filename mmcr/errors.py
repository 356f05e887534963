"""The one kind of error that a user can mend."""


class UserError(ValueError):
    """Bad input from a config, a file, a checkpoint or a command line.

    The message states the rule, the value and what to do; the tools print it
    alone, without a traceback.
    """
