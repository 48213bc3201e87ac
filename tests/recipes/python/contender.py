"""Any number of contenders for locks and elections, by the recipes of kazoo.

The commands, the answers and the referee are those of java/Contender.java.
"""

import os
import queue
import sys
import threading
import time

from kazoo.client import KazooClient
from kazoo.recipe.lock import Lock
from kazoo.retry import RetryFailedError

LIMIT = 60
# As in Contender.java.
INSIDE = 0.001
SERVER = sys.argv[1]
_out = threading.Lock()


class CuratorLock(Lock):
    """A lock that Curator's InterProcessMutex and kazoo's own rules agree about.

    The names of its nodes end as Curator's do. `extra_lock_patterns` alone is not enough: kazoo would
    then wait for Curator, but not Curator for kazoo.
    """

    _NODE_NAME = "-lock-"
    _EXCLUDE_NAMES = ["-lock-"]


class RenamedLock(Lock):
    """As CuratorLock without its second line: it sees no contender at all, not even its own kind."""

    _NODE_NAME = "-lock-"


class Entered:
    """Something that one enters and leaves, by `acquire` and `release`."""

    def __init__(self, lock):
        self.lock = lock

    def enter(self):
        if not self.lock.acquire(timeout=LIMIT):
            raise RuntimeError("not acquired")

    def leave(self):
        self.lock.release()


class Elected:
    def __init__(self, election):
        self.election = election

    def enter(self):
        inside, self.done = threading.Event(), threading.Event()
        done = self.done

        def lead():
            inside.set()
            done.wait()

        self.thread = threading.Thread(target=self.election.run, args=(lead,), daemon=True)
        self.thread.start()
        if not inside.wait(LIMIT):
            raise RuntimeError("not elected")

    def leave(self):
        self.done.set()
        self.thread.join(LIMIT)


class Barrier:
    """To enter is to wait for it, to leave is to remove it."""

    def __init__(self, barrier):
        self.barrier = barrier

    def enter(self):
        if not self.barrier.wait(LIMIT):
            raise RuntimeError("not removed")

    def leave(self):
        self.barrier.remove()


class Counter:
    """To enter is to add one."""

    def __init__(self, counter):
        self.counter = counter

    def enter(self):
        while True:
            try:
                self.counter += 1
                return
            except RetryFailedError:
                pass  # Others were faster.

    def leave(self):
        pass


def recipe(kind, client, path, name):
    kind, _, size = kind.partition(":")
    if kind == "kazoo-lock":
        return Entered(client.Lock(path, name))
    if kind == "kazoo-lock-extra":
        return Entered(client.Lock(path, name, extra_lock_patterns=["-lock-"]))
    if kind == "kazoo-lock-curator":
        return Entered(CuratorLock(client, path, name))
    if kind == "kazoo-lock-renamed":
        return Entered(RenamedLock(client, path, name))
    if kind == "kazoo-read":
        return Entered(client.ReadLock(path, name))
    if kind == "kazoo-write":
        return Entered(client.WriteLock(path, name))
    if kind == "kazoo-semaphore":
        return Entered(client.Semaphore(path, name, max_leases=int(size)))
    if kind == "kazoo-election":
        return Elected(client.Election(path, name))
    if kind == "kazoo-barrier":
        return Barrier(client.Barrier(path))
    if kind == "kazoo-together":
        return client.DoubleBarrier(path, int(size), name)
    if kind == "kazoo-counter":
        return Counter(client.Counter(path))
    if kind == "kazoo-count":
        return Counter(client.Counter(path, support_curator=True))
    raise ValueError("there is no recipe " + kind)


def connect(session_ms):
    client = KazooClient(hosts=SERVER, timeout=session_ms / 1000)
    client.start(timeout=LIMIT)
    return client


class Referee:
    """Sees who is inside by their files; knows nothing of servers."""

    def __init__(self, folder, role, name):
        self.folder, self.role, self.own = folder, role, "%s.%s" % (role, name)

    def enter(self):
        """Who else is inside that must not be; usually nobody."""
        try:
            os.close(os.open(os.path.join(self.folder, self.own), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return "itself"
        met = [
            other
            for other in os.listdir(self.folder)
            if other != self.own and not (self.role == "reader" and other.startswith("reader."))
        ]
        if self.role.startswith("of-") and len(met) < int(self.role[3:]):
            return ""
        return ",".join(met)

    def leave(self):
        try:
            os.unlink(os.path.join(self.folder, self.own))
        except FileNotFoundError:
            pass  # It was reported when it was not made.


class Contender:
    def __init__(self, name):
        self.name = name
        self.commands = queue.Queue()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            command = self.commands.get()
            try:
                answer = getattr(self, command[0])(*command[1:])
            except Exception as error:  # every error is an answer
                answer = "failed %s %s" % (type(error).__name__, str(error).replace("\n", " "))
            with _out:
                print(self.name, answer, flush=True)

    def open(self, kind, path, folder, role, session_ms):
        self.client = connect(int(session_ms))
        self.recipe = recipe(kind, self.client, path, self.name)
        self.referee = Referee(folder, role, self.name)
        return "opened"

    def acquire(self):
        self.recipe.enter()
        met = self.referee.enter()
        return "violation " + met if met else "entered"

    def release(self):
        self.referee.leave()
        self.recipe.leave()
        return "left"

    def rounds(self, count):
        for _ in range(int(count)):
            self.recipe.enter()
            met = self.referee.enter()
            time.sleep(INSIDE)
            self.referee.leave()
            self.recipe.leave()
            if met:
                return "violation " + met
        return "done " + count

    def close(self):
        self.client.stop()
        self.client.close()
        return "closed"

    def measure(self, kind, path, contenders, sessions, warmup_ms, span_ms):
        """Lets contenders enter and leave at once, again and again. A hand-over ends when the next has entered."""
        clients = [connect(30_000) for _ in range(int(sessions))]
        all_of_them = [
            recipe(kind, clients[index % len(clients)], path, "%s-%d" % (self.name, index))
            for index in range(int(contenders))
        ]
        begin = time.perf_counter() + int(warmup_ms) / 1000
        end = begin + int(span_ms) / 1000
        hand_overs, failures, left, entered = [], [], [None], [0]

        def contend(contender):
            try:
                while time.perf_counter() < end:
                    contender.enter()
                    now = time.perf_counter()
                    # Only the one inside is here.
                    entered[0] += 1
                    since, left[0] = left[0], None
                    if since is not None and begin <= now < end:
                        hand_overs.append(now - since)
                    left[0] = time.perf_counter()
                    contender.leave()
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=contend, args=(one,), daemon=True) for one in all_of_them]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        for client in clients:
            client.stop()
            client.close()
        if failures:
            raise failures[0]
        hand_overs.sort()
        return "figures %.1f %.1f %.1f %d" % (
            len(hand_overs) / (end - begin),
            hand_overs[len(hand_overs) // 2] * 1e6,
            hand_overs[len(hand_overs) * 99 // 100] * 1e6,
            entered[0],
        )


contenders = {}
for line in sys.stdin:
    name, *command = line.split()
    if name not in contenders:
        contenders[name] = Contender(name)
    contenders[name].commands.put(command)
os._exit(0)
