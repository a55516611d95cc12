"""The exit codes of `mlops`. Scripts read these, never the text of a message."""

DONE = 0
"""The command did what it was called for."""

ERROR = 1
"""An error that the reader can fix; standard error has the cause and the fix. Also: a check found something."""

USAGE = 2
"""The command line or a setting is not valid. `mlops doctor`: the comparison is not possible."""

WOULD_OVERWRITE = 3
"""Files with changes of their owner would be overwritten; nothing was written."""

LIMIT_MISSED = 4
"""The model misses the gate or a limit."""

NOT_REPRODUCED = 5
"""A metric of the rebuilt version differs from the recorded one."""

TRY_LATER = 75
"""Another run, update of the stack or deployment is in progress, or a server does not respond: try again later (EX_TEMPFAIL)."""

INTERRUPTED = 130
"""Ctrl-C."""
