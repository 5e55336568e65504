"""Refuses every connect but to this machine, and writes it down: for the processes that tests start.

Python imports a module of this name when it starts, from PYTHONPATH. KINETOGRAPH_NETWORK names a folder of two lists,
a JSON record a line: `watched`, the processes that this guards, and `refused`, what they tried.
"""

import errno
import ipaddress
import json
import os
import socket
import sys
import traceback

FOLDER = os.environ.get("KINETOGRAPH_NETWORK", "")
OWN_NAMES = {"localhost", "ip6-localhost"}
# event: whether what it is about is a name to look up; elsewhere a socket and where it goes
EVENTS = {
    "socket.connect": False,
    "socket.sendto": False,
    "socket.sendmsg": False,
    "socket.getaddrinfo": True,
    "socket.gethostbyname": True,
}
STACK_LINES = 20


def append(name, record):
    """Add a line to a list; several processes may do so at once."""
    line = json.dumps({"pid": os.getpid(), "command": sys.orig_argv, **record}) + "\n"
    file = os.open(os.path.join(FOLDER, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def ip_of(host):
    """The address that a text is, None for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_own_name(host):
    """Whether looking it up asks nobody: an address, a name of this machine's loopback, or nothing."""
    text = os.fsdecode(host or "").lower().rstrip(".")
    return not text or text in OWN_NAMES or ip_of(text) is not None


def is_inside(endpoint, address):
    """Whether a socket that goes there stays on this machine."""
    if address is None or endpoint.family == getattr(socket, "AF_UNIX", None):
        return True
    inet = endpoint.family in (socket.AF_INET, socket.AF_INET6)
    ip = ip_of(os.fsdecode(address[0])) if inet else None
    return (
        os.fsdecode(address[0]).lower() in OWN_NAMES if inet and ip is None else bool(ip and ip.is_loopback)
    )


def refuse(event, arguments):
    """Python's audit hook: a record and an OSError for what would leave this machine."""
    is_name = EVENTS.get(event)
    if is_name is None:
        return
    inside = is_own_name(arguments[0]) if is_name else is_inside(*arguments[:2])
    if inside:
        return
    where = repr(arguments[0] if is_name else arguments[1])
    if FOLDER:
        stack = traceback.format_stack(limit=STACK_LINES)[:-1]
        append("refused", {"event": event, "where": where, "stack": stack})
    raise OSError(errno.ENETUNREACH, f"Tests reach nothing but this machine: {event} {where} was refused")


if FOLDER:
    append("watched", {})
sys.addaudithook(refuse)
