"""Two hosts on one machine: network namespaces joined by a bridge, whose links can be cut.

Each has a PID namespace too, so that neither sees the processes of the other. The machine itself is
the third party, where the database listens.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_OWN_PIDS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
_NET = "10.213.77"
_TAGGED = re.compile(r"il(\d+)[ab]?p?")
"""The names of bridges, hosts and links, which begin with the process that made them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host of the network; `prefix` begins a command that runs there."""

    name: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Return what is put before a command to run it on this host."""
        return ("ip", "netns", "exec", self.name, *_OWN_PIDS)

    def cut(self) -> None:
        """Let nothing through any more in either direction; nobody is told."""
        _ip("link", "set", f"{self.name}p", "down")

    def join(self) -> None:
        """Let everything through again."""
        _ip("link", "set", f"{self.name}p", "up")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Two hosts, and the address at which they reach this machine."""

    hosts: tuple[Host, Host]
    address: str = f"{_NET}.1"


def why_absent() -> str | None:
    """Return why this machine gives no such network; None if it does."""
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    try:
        with network() as net:
            done = [subprocess.run([*h.prefix, "true"], check=False).returncode for h in net.hosts]
    except (OSError, subprocess.CalledProcessError) as error:
        told = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        return f"no network namespaces: {told.strip()}"
    return None if done == [0, 0] else "no PID namespaces within network namespaces"


@contextmanager
def network() -> Iterator[Network]:
    """Give two joined hosts; they are gone at the end."""
    _sweep()
    tag = f"il{os.getpid()}"
    hosts = (Host(name=f"{tag}a"), Host(name=f"{tag}b"))
    made: list[tuple[str, ...]] = []
    try:
        _ip("link", "add", tag, "type", "bridge")
        made.append(("link", "del", tag))
        _ip("addr", "add", f"{_NET}.1/24", "dev", tag)
        _ip("link", "set", tag, "up")
        for number, host in enumerate(hosts, start=2):
            _ip("netns", "add", host.name)
            made.append(("netns", "del", host.name))
            inside = ("-n", host.name)
            _ip("link", "add", f"{host.name}p", "type", "veth", "peer", "name", f"{host.name}q")
            # Not left to the end of the namespace, which may come much later.
            made.append(("link", "del", f"{host.name}p"))
            _ip("link", "set", f"{host.name}q", "netns", host.name)
            _ip("link", "set", f"{host.name}p", "master", tag, "up")
            _ip(*inside, "addr", "add", f"{_NET}.{number}/24", "dev", f"{host.name}q")
            _ip(*inside, "link", "set", f"{host.name}q", "up")
            _ip(*inside, "link", "set", "lo", "up")
        yield Network(hosts=hosts)
    finally:
        for command in reversed(made):
            subprocess.run(["ip", *command], capture_output=True, check=False)


def _sweep() -> None:
    """Remove what a proof left that was killed: it has the addresses of the next."""
    hosts = _ip("netns", "list").splitlines()
    links = _ip("-br", "link", "show").splitlines()
    for kind, lines in (("netns", hosts), ("link", links)):
        for name in {re.split(r"[ @]", line, maxsplit=1)[0] for line in lines if line}:
            tagged = _TAGGED.fullmatch(name)
            if tagged and not Path(f"/proc/{tagged[1]}").exists():
                subprocess.run(["ip", kind, "del", name], capture_output=True, check=False)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
    return done.stdout
