"""kazoo's recipes, with two clients where two are needed."""

import threading
import time

from script import await_event, close, connect, say, step

a = connect()
b = connect()


def together(call):
    """Runs `call` in a thread; the returned function waits for it."""
    result = []
    thread = threading.Thread(target=lambda: result.append(call()), daemon=True)
    thread.start()

    def wait():
        thread.join(20)
        return result[0] if result else "not in time"

    return wait


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("not in time")


# Lock.
mine, theirs = a.Lock("/lock", "a"), b.Lock("/lock", "b")
step("a locks", mine.acquire)
step("b tries", theirs.acquire, blocking=False)
step("b waits a little", theirs.acquire, timeout=0.3)
waiting = together(lambda: theirs.acquire(timeout=20))
until(lambda: len(a.get_children("/lock")) == 2)
step("contenders", mine.contenders)
step("a unlocks", mine.release)
step("b has it", waiting)
step("b unlocks", theirs.release)
step("nobody", mine.contenders)

# Read and write locks.
readers = [a.ReadLock("/rw", "a"), b.ReadLock("/rw", "b")]
for reader in readers:
    step("read lock", reader.acquire, timeout=5)
step("write lock refused", a.WriteLock("/rw", "w").acquire, blocking=False)
for reader in readers:
    step("read unlock", reader.release)
writer = a.WriteLock("/rw", "w")
step("write lock", writer.acquire, timeout=5)
step("read lock refused", b.ReadLock("/rw", "r").acquire, blocking=False)
step("write unlock", writer.release)

# Semaphore.
first, second = a.Semaphore("/semaphore", "a", max_leases=1), b.Semaphore("/semaphore", "b", max_leases=1)
step("a takes the lease", first.acquire)
step("b does not", second.acquire, blocking=False)
step("holders", second.lease_holders)
step("a gives it back", first.release)
step("b takes it", second.acquire, timeout=10)
step("b gives it back", second.release)

# Election.
order = []
election = [client.Election("/election", name) for client, name in ((a, "a"), (b, "b"))]
inside, leave = threading.Event(), threading.Event()


def lead():
    order.append("a leads")
    inside.set()
    leave.wait(20)


running = together(lambda: election[0].run(lead))
await_event(inside, "leadership")
next_running = together(lambda: election[1].run(lambda: order.append("b leads")))
until(lambda: len(election[0].contenders()) == 2)
step("contenders", election[0].contenders)
leave.set()
running()
next_running()
say("order: %s" % order)

# Counter.
counter = a.Counter("/counter")
counter += 5
counter -= 2
other = b.Counter("/counter")
other += 10
step("counter", lambda: counter.value)
step("counter before", lambda: counter.pre_value)
typed = a.Counter("/float", default=1.5)
typed += 2.25
step("float counter", lambda: typed.value)


def add():
    mine = b.Counter("/counter")
    for _ in range(20):
        mine += 1
    return "done"


adding = together(add)
for _ in range(20):
    counter += 1
step("added", adding)
step("counter in the end", lambda: counter.value)

# Barriers.
barrier = a.Barrier("/barrier")
step("create the barrier", barrier.create)
step("wait in vain", b.Barrier("/barrier").wait, 0.2)
passing = together(lambda: b.Barrier("/barrier").wait(20))
step("remove the barrier", barrier.remove)
step("passed", passing)
double = [client.DoubleBarrier("/double", 2, name) for client, name in ((a, "a"), (b, "b"))]
entering = [together(one.enter) for one in double]
step("both entered", lambda: [one() for one in entering])
step("participating", lambda: [one.participating for one in double])
leaving = [together(one.leave) for one in double]
step("both left", lambda: [one() for one in leaving])

# Queues.
queue = a.Queue("/queue")
for value, priority in ((b"late", 200), (b"first", 50), (b"second", 100)):
    step("put", queue.put, value, priority)
step("length", lambda: len(queue))
step("taken", lambda: [b.Queue("/queue").get(), queue.get(), queue.get(), queue.get()])
locking = a.LockingQueue("/locking")
step("put all", locking.put_all, [b"1", b"2"])
step("get", locking.get, 5)
step("holds", locking.holds_lock)
step("the other gets the next", lambda: b.LockingQueue("/locking").get(5))
step("consume", locking.consume)
step("length", lambda: len(locking))

# Party.
party = [client.Party("/party", name) for client, name in ((a, "a"), (b, "b"))]
for one in party:
    one.join()
step("party", lambda: sorted(party[0]))
party[1].leave()
step("party after", lambda: sorted(party[0]))
shallow = a.ShallowParty("/shallow", "a")
shallow.join()
step("shallow party", lambda: list(shallow))

# Partitioner.
partitions = [client.SetPartitioner("/partition", set=(1, 2, 3), identifier=name, time_boundary=0.5) for client, name in ((a, "a"), (b, "b"))]


def allocate(one):
    deadline = time.monotonic() + 20
    while not one.acquired:
        if one.failed or time.monotonic() > deadline:
            return ["failed"]
        if one.release:
            one.release_set()
        elif one.allocating:
            one.wait_for_acquire(1)
    return list(one)


allocating = [together(lambda one=one: allocate(one)) for one in partitions]
step("partitions", lambda: sorted(sum((one() for one in allocating), [])))
for one in partitions:
    one.finish()

close(b)
close(a)
