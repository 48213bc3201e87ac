"""A closed loop of gets and sets: server, path, seconds of each figure."""
import collections
import sys
import time

from kazoo.client import KazooClient

server, path, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
client = KazooClient(hosts=server)
client.start()
client.ensure_path(path)
data = b"x" * 100
client.set(path, data)

for name in ("get", "set"):
    for outstanding in (1, 30, 1000):
        ask = (lambda: client.get_async(path)) if name == "get" else (lambda: client.set_async(path, data))
        under_way = collections.deque((time.perf_counter(), ask()) for _ in range(outstanding))
        latencies = []
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            asked, answer = under_way.popleft()
            answer.get()
            latencies.append(time.perf_counter() - asked)
            under_way.append((time.perf_counter(), ask()))
        elapsed = time.perf_counter() - begun
        for _, answer in under_way:
            answer.get()
        latencies.sort()
        figures = (
            len(latencies) / elapsed,
            latencies[len(latencies) // 2] * 1e6,
            latencies[len(latencies) * 99 // 100] * 1e6,
        )
        print(f"{name} x {outstanding}", " ".join(str(figure) for figure in figures), sep="\t")
client.stop()
