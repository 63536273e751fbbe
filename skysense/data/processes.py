"""Other processes on this machine: whose temporary files may go."""

import os


def is_alive(pid: int) -> bool:
    """Whether another process has this number; in a container ours may have had it before."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
