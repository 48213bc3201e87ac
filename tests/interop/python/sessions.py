"""Watches, and what happens to sessions that are resumed or expire."""

import threading

from kazoo.client import KazooState
from kazoo.protocol.states import KeeperState
from kazoo.recipe.watchers import ChildrenWatch, DataWatch

from script import DIRECT, PROXIED, Events, await_event, close, connect, proxy, say, show, step

a = connect()
b = connect()

# One-shot watches.
e = Events("one-shot")
step("exists", a.exists, "/w", watch=e)
b.create("/w")
e.print_all(a, 1)
step("get", a.get, "/w", watch=e)
step("exists too", a.exists, "/w", watch=e)
b.set("/w", b"1")
e.print_all(a, 1)
step("get missing", a.get, "/nope", watch=e)
step("children", a.get_children, "/w", watch=e)
b.create("/w/k")
e.print_all(a, 1)
a.get_children("/w", watch=e)
a.get("/w/k", watch=e)
b.delete("/w/k")
e.print_all(a, 2)
own = Events("own")
a.get("/w", watch=own)
a.set("/w", b"2")
own.print_all(a, 1)

# The watches kazoo keeps alive itself.
seen = []
changed = threading.Condition()


def note(line):
    with changed:
        seen.append(line)
        changed.notify_all()


def until(count, what):
    with changed:
        if not changed.wait_for(lambda: len(seen) >= count, 20):
            raise RuntimeError("not in time: %s, seen %s" % (what, seen))
        for line in seen:
            say("%s: %s" % (what, line))
        seen.clear()


DataWatch(a, "/data", lambda data, stat, event: note("%r %s" % (data, event and event.type)))
until(1, "data watch")
for change in (lambda: b.create("/data", b"1"), lambda: b.set("/data", b"2"), lambda: b.delete("/data")):
    change()
    until(1, "data watch")
b.create("/children")
ChildrenWatch(a, "/children", lambda names: note(str(sorted(names))))
until(1, "children watch")
for change in (lambda: b.create("/children/x"), lambda: b.create("/children/y"), lambda: b.delete("/children/x")):
    change()
    until(1, "children watch")

# A session resumed by another client.
c = connect(PROXIED)
c.create("/resumed", ephemeral=True)
identity = c.client_id
lost = threading.Event()
c.add_listener(lambda state: lost.set() if state != KazooState.CONNECTED else None)
proxy("hold")
await_event(lost, "suspended")
d = connect(client_id=identity)
step("same session", lambda: d.client_id == identity)
step("owner", lambda: d.exists("/resumed").ephemeralOwner == identity[0])
step("d sets", d.set, "/resumed", b"by d")
close(d)
step("gone with the session", b.exists, "/resumed")
proxy("release")

# A session resumed with a wrong password gets a new one, as kazoo has it.
wrong = connect(client_id=(identity[0], b"\0" * 16))
step("another session", lambda: wrong.client_id != identity)
close(wrong)
close(c)

# A session that expires.
gone = Events("expiry")
f = connect(PROXIED, timeout=1.0)
states = []
came_back = threading.Event()


def on_state(state):
    states.append(state)
    if state == KazooState.CONNECTED and KazooState.LOST in states:
        came_back.set()


f.add_listener(on_state)
f.create("/expires", ephemeral=True)
first = f.client_id[0]
step("watched", b.exists, "/expires", watch=gone)
proxy("hold")
with gone.changed:
    if not gone.changed.wait_for(lambda: gone.seen, 20):
        raise RuntimeError("the session does not expire")
gone.print_all(b, 1)
proxy("release")
await_event(came_back, "a new session")
say("states: %s" % states)
step("a new session", lambda: f.client_id[0] != first)
step("which works", f.exists, "/expires")
close(f)

# A cut connection without expiry: DataWatch reads again by itself.
g = connect(PROXIED)
b.create("/cut", b"1")
DataWatch(g, "/cut", lambda data, stat: note(repr(data)))
until(1, "before the cut")
back = threading.Event()
g.add_listener(lambda state: back.set() if state == KazooState.CONNECTED else None)
proxy("hold")
b.set("/cut", b"2")
proxy("release")
await_event(back, "reconnection")
until(1, "after the cut")
close(g)
close(a)
close(b)
