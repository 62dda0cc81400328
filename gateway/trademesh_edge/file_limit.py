"""A socket is an open file: the limit on those is raised as far as the machine lets us, and said if it is too low."""

from __future__ import annotations

import resource

from trademesh_kernel.logs import get_logger

BESIDES_SOCKETS = 128
"""Files that the edge has open besides browsers: channels to servers, libraries, its listener."""


def raise_file_limit(needed: int) -> int:
    """Raises the soft limit to the hard one; returns it, and warns if it is below what is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < needed:
        get_logger("edge").warning("too few open files are allowed for so many sockets: raise `ulimit -n`", allowed=hard, needed=needed)
    return hard
