"""Listening sockets: bound here, or handed over by systemd; and the user to go on as once they are there.

1. Sockets are bound before any worker is started and before root is given up, and inherited: all workers take from one queue.
2. With socket activation (sd_listen_fds(3)) `listen` stays the one place that says what is listened on and how: each entry takes
   the sockets handed over that are bound to its address; the others are bound here. A socket that no entry names is an error.
"""

import contextlib
import os
import pwd
import socket
from collections.abc import Iterable, MutableMapping, Sequence
from ipaddress import ip_address

from inbound.errors import ConfigurationError, Problem
from inbound.receive.edge import BACKLOG, Bound, host_and_port
from inbound.settings import Listener

FIRST_HANDED_OVER = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


def handed_over(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that systemd gives this process; their variables are taken out of `environ`. Raises ConfigurationError."""
    count, meant_for = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if not count.isdecimal() or meant_for != str(os.getpid()):
        return []
    sockets = []
    for handle in range(FIRST_HANDED_OVER, FIRST_HANDED_OVER + int(count)):
        try:
            sock = socket.socket(fileno=handle)
            listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise _problem(f"file descriptor {handle} from systemd is no socket: {error.strerror}") from None
        if not listening or sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise _problem(f"file descriptor {handle} from systemd is no listening TCP socket")
        sock.set_inheritable(False)
        sockets.append(sock)
    return sockets


def bind(listen: Iterable[str | Listener], ready: Sequence[socket.socket] = ()) -> list[Bound]:
    """Listen on every entry, on the `ready` sockets where they are bound to it. Raises ConfigurationError."""
    left = list(ready)
    bound: list[Bound] = []
    with contextlib.ExitStack() as undone:
        for entry in listen:
            listener = Listener(address=entry) if isinstance(entry, str) else entry
            addresses = _addresses(listener)
            fitting = [sock for sock in left if _where(sock) in addresses]
            left = [sock for sock in left if sock not in fitting]
            sockets = fitting or [undone.enter_context(_listening(listener, *address)) for address in addresses]
            bound.append(Bound(listener=listener, sockets=tuple(sockets)))
        if left:
            names = ", ".join(f"{host} port {port}" for host, port in map(_where, left))
            raise _problem(f"no entry is for the socket from systemd at {names}")
        undone.pop_all()
    return bound


def close(bound: Bound) -> None:
    """Listen no longer, as far as this process goes."""
    for sock in bound.sockets:
        sock.close()


def become(user: str) -> None:
    """Go on as this user, in its groups, for good. Raises ConfigurationError when that cannot be."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise _user_problem(f"there is no user {user!r}") from None
    if os.getuid() == entry.pw_uid and entry.pw_uid != 0:
        return
    if entry.pw_uid == 0:
        raise _user_problem(f"{user} is root; name one without privileges")
    try:
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except PermissionError:
        raise _user_problem(f"only root can become {user}") from None
    with contextlib.suppress(PermissionError):
        os.setuid(0)
        raise _user_problem("root could not be given up")


def _addresses(listener: Listener) -> list[tuple[str, int]]:
    host, port = host_and_port(listener.address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _problem(f"cannot listen on {listener.address}: {error.strerror or error}") from None
    return list(dict.fromkeys((str(address[0]), int(address[1])) for *_, address in found))


def _listening(listener: Listener, host: str, port: int) -> socket.socket:
    six = ip_address(host.partition("%")[0]).version == 6  # noqa: PLR2004
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is.
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        raise _problem(f"cannot listen on {listener.address}: {getattr(error, 'strerror', None) or error}") from None
    return sock


def _where(sock: socket.socket) -> tuple[str, int]:
    host, port = sock.getsockname()[:2]
    return host, port


def _problem(message: str) -> ConfigurationError:
    return ConfigurationError([Problem(file="listen", line=0, column=0, message=message)])


def _user_problem(message: str) -> ConfigurationError:
    return ConfigurationError([Problem(file="user", line=0, column=0, message=message)])
