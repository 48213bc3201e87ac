"""What the kazoo scripts share: a transcript line per step, marks, bounded waits, the proxy."""

import socket
import sys
import threading

from kazoo.client import KazooClient
from kazoo.protocol.states import ZnodeStat

DIRECT, PROXIED, CONTROL = sys.argv[1:4]
LIMIT = 20
_lock = threading.Lock()


def say(line):
    with _lock:
        print(line, flush=True)


def show(value):
    if isinstance(value, ZnodeStat):
        return (
            "[c={zxid:%d} m={zxid:%d} p={zxid:%d} v=%d,%d,%d owner={session:%d} length=%d children=%d times={time:%d}/{time:%d}]"
            % (
                value.czxid, value.mzxid, value.pzxid, value.version, value.cversion, value.aversion,
                value.ephemeralOwner, value.dataLength, value.numChildren, value.ctime, value.mtime,
            )
        )
    if isinstance(value, bytes) and len(value) > 200:
        return "%d bytes" % len(value)
    if isinstance(value, list):
        if all(isinstance(one, str) for one in value):
            value = sorted(value)
        return "[" + ", ".join(show(one) for one in value) + "]"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return "(" + ", ".join(show(one) for one in value) + ")"
    if isinstance(value, Exception):
        return "error %s" % type(value).__name__
    return repr(value) if not isinstance(value, str) else value


def step(label, call, *args, **kwargs):
    """Runs one step and prints what it returns, or the class of its error."""
    try:
        result = call(*args, **kwargs)
    except Exception as error:  # every error is part of the transcript
        result = error
    say("%s: %s" % (label, show(result)))
    return result


def connect(hosts=DIRECT, timeout=30.0, **kwargs):
    client = KazooClient(hosts=hosts, timeout=timeout, **kwargs)
    client.start(timeout=LIMIT)
    return client


def close(client):
    client.stop()
    client.close()


def await_event(event, what):
    if not event.wait(LIMIT):
        raise RuntimeError("not in time: " + what)


class Events:
    """A watcher that keeps its events until they are asked for."""

    def __init__(self, name):
        self.name = name
        self.seen = []
        self.changed = threading.Condition()

    def __call__(self, event):
        with self.changed:
            self.seen.append("%s %s %s" % (event.type, event.state, event.path))
            self.changed.notify_all()

    def print_all(self, client, at_least=0):
        """Prints what has come; what the server sent before the sync's answer has been delivered."""
        client.sync("/")
        done = threading.Event()
        client.handler.dispatch_callback(_Callback(done))
        await_event(done, "callbacks")
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.seen) >= at_least, LIMIT):
                raise RuntimeError("%s: not enough events: %s" % (self.name, self.seen))
            for line in self.seen:
                say("%s event: %s" % (self.name, line))
            self.seen.clear()


class _Callback:
    """What kazoo's handler queues behind the watch callbacks before it."""

    type = "watch"
    args = ()

    def __init__(self, done):
        self.func = done.set


def proxy(command):
    host, port = CONTROL.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=LIMIT) as control:
        control.sendall(command.encode() + b"\n")
        if control.makefile().readline() != "done\n":
            raise RuntimeError("the proxy refuses " + command)
