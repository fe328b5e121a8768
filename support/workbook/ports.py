"""TCP ports on 127.0.0.1: is one free, and who has it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

HOST = "127.0.0.1"
_LISTEN = "0A"  # the state TCP_LISTEN in /proc/net/tcp


class PortTaken(OSError):
    """Another program listens on the port; ``port`` and, where it can be found, its ``pid``."""

    def __init__(self, port: int, pid: int | None) -> None:
        owner = f"process {pid}" if pid else "another program"
        super().__init__(f"port {port} on {HOST} is taken by {owner}; stop it, or leave the port out to get a free one")
        self.port = port
        self.pid = pid


def free_port() -> int:
    """A port that was free a moment ago. Somebody may take it before it is used: be ready to try another."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def require_free(port: int) -> None:
    """Raise `PortTaken` when nobody could listen on ``port`` now."""
    with socket.socket() as probe:
        # As servers do: a connection that is still closing does not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError as error:
            raise PortTaken(port, listener(port)) from error


def listener(port: int) -> int | None:
    """The process that listens on ``port``, from /proc; None when it is not ours to see."""
    inodes = {
        fields[9]
        for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
        if table.exists()
        for fields in (line.split() for line in table.read_text().splitlines()[1:])
        if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port
    }
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) in wanted for link in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue  # it ended meanwhile, or belongs to another user
    return None
