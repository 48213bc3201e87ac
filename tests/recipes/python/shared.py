"""Shared state by the recipes of kazoo: a command a line, an answer a line."""

import sys
import time

from kazoo.client import KazooClient

client = KazooClient(hosts=sys.argv[1])
client.start(timeout=60)


def until(path):
    while not client.exists(path):
        time.sleep(0.01)


def counter(path, change, **options):
    shared = client.Counter(path, **options)
    shared += int(change)
    return shared.post_value


def double(path, members):
    barrier = client.DoubleBarrier(path, int(members), identifier="kazoo")
    barrier.enter()
    client.create("/entered/kazoo", makepath=True)
    until("/leave")
    barrier.leave()
    return "left"


def put(path, priority, item):
    client.Queue(path).put(item.encode(), int(priority))
    return "put"


def held(path):
    client.Barrier(path).create()
    until("/seen")
    return client.Barrier(path).remove()


COMMANDS = {
    "counter": counter,
    "count": lambda path, change: counter(path, change, support_curator=True),
    "put": put,
    "wait": lambda path: client.Barrier(path).wait(60),
    "hold": held,
    "double": double,
}

for line in sys.stdin:
    verb, *arguments = line.split()
    print(verb, COMMANDS[verb](*arguments), flush=True)
client.stop()
