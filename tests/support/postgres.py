"""A real PostgreSQL server for tests: Debian's binaries, a password, a random port, gone at the end."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tests.support.servers import free_port, start, stop

USER = "assay"


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, of the newest version that is installed; None if none is."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


@dataclass
class Postgres:
    """A server that can be stopped and started again.

    Attributes:
        secret: the part of the password that must appear nowhere. The rest of it needs quoting in an address.
    """

    folder: Path
    host: str
    port: int
    secret: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def password(self) -> str:
        return f"p@ss/{self.secret}"

    @property
    def url(self) -> str:
        """The address of the database that is there from the start."""
        return self.address("postgres")

    def address(self, database: str) -> str:
        return f"postgresql+psycopg2://{USER}:{quote(self.password, safe='')}@{self.host}:{self.port}/{database}"

    def create(self, database: str) -> str:
        """A new, empty database; its address."""
        with closing(self._connection("postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute(f'CREATE DATABASE "{database}"')
        return self.address(database)

    def text(self, database: str) -> str:
        """All that a database holds, as text."""
        folder = binaries()
        assert folder is not None
        command = [str(folder / "pg_dump"), "--host", self.host, "--port", str(self.port), "--username", USER, database]
        environment = {**os.environ, "PGPASSWORD": self.password}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def admit_neighbours(self) -> None:
        """Let the network of its address in too, with the password, where that is not this machine alone."""
        if not self.host.startswith("127."):
            with (self.folder / "data" / "pg_hba.conf").open("a") as file:
                file.write(f"host all all {self.host}/24 scram-sha-256\n")

    def start(self) -> None:
        folder = binaries()
        assert folder is not None
        options = {"listen_addresses": self.host, "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        command = [str(folder / "postgres"), "-D", str(self.folder / "data")]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._server = start(command, self.folder / "postgres.log", self._answers, os.environ, account())

    def stop(self) -> None:
        """A fast shutdown: open connections are cut."""
        stop(self._server)

    def _answers(self) -> bool:
        import psycopg2

        try:
            self._connection("postgres").close()
        except psycopg2.OperationalError:
            return False
        return True

    def _connection(self, database: str):  # type: ignore[no-untyped-def]
        import psycopg2

        return psycopg2.connect(
            host=self.host, port=self.port, user=USER, password=self.password, dbname=database, connect_timeout=5
        )


def account() -> str | None:
    """Whom the server runs as; None is the user of the tests. Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def running_postgres(host: str = "127.0.0.1") -> Iterator[Postgres]:
    """A new server. Its data are in a folder of their own below the system's temporary folder, where the server's
    account may enter; pytest's folders are closed to it.
    """
    programs = binaries()
    assert programs is not None, "PostgreSQL is not installed: apt-get install postgresql"
    folder = Path(tempfile.mkdtemp(prefix="assay-postgres-"))
    user = account()
    try:
        postgres = Postgres(folder, host, free_port(host))
        secret = folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(postgres.password)
        if user is not None:
            for path in (folder, secret):
                shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
        options = ("--username", USER, "--pwfile", str(secret), "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8")
        subprocess.run(
            [str(programs / "initdb"), "-D", str(folder / "data"), "--no-locale", *options],
            user=user, cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
        secret.unlink()
        postgres.admit_neighbours()
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
