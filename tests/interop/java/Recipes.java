import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.cache.PathChildrenCache;
import org.apache.curator.framework.recipes.cache.TreeCache;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessMultiLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryOneTime;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.data.Stat;

/** Curator's recipes and the parts of its framework that use special operations. */
public class Recipes extends Script {
    private final ExecutorService background = Executors.newCachedThreadPool(runnable -> {
        Thread thread = new Thread(runnable);
        thread.setDaemon(true);
        return thread;
    });
    private CuratorFramework a;
    private CuratorFramework b;

    Recipes(String[] arguments) {
        super(arguments);
    }

    public static void main(String[] arguments) throws Exception {
        Recipes script = new Recipes(arguments);
        script.a = script.start(script.direct);
        script.b = script.start(script.direct);
        script.framework();
        script.locks();
        script.leaders();
        script.caches();
        script.nodes();
        script.counters();
        script.barriers();
        script.queues();
        script.reconnect();
        script.a.close();
        script.b.close();
        done();
    }

    CuratorFramework start(String address) throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.builder().connectString(address)
            .sessionTimeoutMs(SESSION_MS).connectionTimeoutMs(SESSION_MS).retryPolicy(new RetryOneTime(100)).build();
        client.start();
        if (!client.blockUntilConnected(20, TimeUnit.SECONDS)) {
            throw new IllegalStateException("not connected in time");
        }
        return client;
    }

    void await(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + LIMIT_MS * 1_000_000;
        while (!condition.call()) {
            if (System.nanoTime() > deadline) {
                say(what + ": not in time");
                return;
            }
            Thread.sleep(5);
        }
        say(what + ": yes");
    }

    static byte[] b(String text) {
        return text.getBytes();
    }

    void framework() throws Exception {
        step("create with parents", () -> a.create().creatingParentContainersIfNeeded().forPath("/parents/of/this", b("x")));
        step("a parent", () -> a.checkExists().forPath("/parents/of"));
        step("create or set", () -> a.create().orSetData().creatingParentsIfNeeded().forPath("/or/set", b("1")));
        step("create or set again", () -> a.create().orSetData().forPath("/or/set", b("2")));
        step("data", () -> a.getData().forPath("/or/set"));
        step("protected", () -> a.create().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath("/or/p-")
            .replaceAll("_c_[-0-9a-f]{36}-", "GUID-"));
        step("TTL", () -> a.create().withTtl(60_000).withMode(CreateMode.PERSISTENT_WITH_TTL).forPath("/ttl", b("x")));
        Stat stat = new Stat();
        step("stat", () -> a.create().storingStatIn(stat).forPath("/stat", b("x")));
        step("stored", () -> stat);
        step("compressed", () -> a.create().compressed().forPath("/gz", b("text")));
        step("uncompressed", () -> b.getData().decompressed().forPath("/gz"));
        step("transaction", () -> results(a.transaction().forOperations(
            a.transactionOp().create().forPath("/tx", b("1")),
            a.transactionOp().check().withVersion(0).forPath("/tx"),
            a.transactionOp().setData().forPath("/tx", b("2")),
            a.transactionOp().create().withMode(CreateMode.EPHEMERAL).forPath("/tx/e"),
            a.transactionOp().delete().forPath("/tx/e"))));
        step("failed transaction", () -> results(a.transaction().forOperations(
            a.transactionOp().setData().forPath("/tx", b("3")), a.transactionOp().delete().forPath("/nothing"))));
        step("delete with children", () -> { a.delete().deletingChildrenIfNeeded().forPath("/parents"); return "done"; });
        step("delete quietly", () -> { a.delete().quietly().forPath("/parents"); return "done"; });
        step("delete guaranteed", () -> { a.delete().guaranteed().forPath("/gz"); return "done"; });
        step("idempotent", () -> a.create().idempotent().forPath("/idem", b("x")));
        step("idempotent again", () -> a.create().idempotent().forPath("/idem", b("x")));
        step("idempotent set", () -> a.setData().idempotent().withVersion(0).forPath("/idem", b("y")).getVersion());
        step("idempotent delete", () -> { a.delete().idempotent().forPath("/idem"); return "done"; });
        step("idempotent delete again", () -> { a.delete().idempotent().forPath("/idem"); return "done"; });
        step("config", () -> a.getConfig().forEnsemble());
        step("ensemble", () -> a.getCurrentConfig().getAllMembers().size());
        step("connect string", () -> a.getZookeeperClient().getCurrentConnectionString().equals(direct));
        step("namespace", () -> a.usingNamespace("space").create().forPath("/x"));
        step("seen from outside", () -> a.checkExists().forPath("/space/x") != null);
        step("sync", () -> { a.sync().forPath("/"); return "done"; });
        step("watches", () -> {
            CountDownLatch latch = new CountDownLatch(1);
            a.watchers().add().forPath("/added");
            a.getData().usingWatcher((org.apache.curator.framework.api.CuratorWatcher) event -> latch.countDown()).forPath("/or/set");
            b.setData().forPath("/or/set", b("3"));
            return latch.await(20, TimeUnit.SECONDS);
        });
    }

    static String results(Collection<CuratorTransactionResult> results) {
        List<String> shown = new ArrayList<>();
        for (CuratorTransactionResult result : results) {
            shown.add(result.getType() + " " + result.getForPath() + " " + result.getResultPath() + " " + show(result.getResultStat()));
        }
        return String.join(" | ", shown);
    }

    void locks() throws Exception {
        InterProcessMutex mine = new InterProcessMutex(a, "/mutex");
        InterProcessMutex theirs = new InterProcessMutex(b, "/mutex");
        step("a locks", () -> mine.acquire(20, TimeUnit.SECONDS));
        step("a locks again", () -> mine.acquire(1, TimeUnit.SECONDS));
        step("b does not", () -> theirs.acquire(200, TimeUnit.MILLISECONDS));
        Future<Boolean> waiting = background.submit(() -> {
            boolean got = theirs.acquire(20, TimeUnit.SECONDS);
            theirs.release();
            return got;
        });
        await("b waits", () -> mine.getParticipantNodes().size() == 2);
        mine.release();
        step("a still holds", () -> mine.isOwnedByCurrentThread());
        mine.release();
        step("b got it", () -> waiting.get(20, TimeUnit.SECONDS));
        step("nobody", () -> mine.getParticipantNodes().size());

        InterProcessReadWriteLock ours = new InterProcessReadWriteLock(a, "/rw");
        InterProcessReadWriteLock other = new InterProcessReadWriteLock(b, "/rw");
        step("read", () -> ours.readLock().acquire(20, TimeUnit.SECONDS));
        step("read too", () -> other.readLock().acquire(20, TimeUnit.SECONDS));
        step("no write", () -> new InterProcessReadWriteLock(b, "/rw").writeLock().acquire(200, TimeUnit.MILLISECONDS));
        ours.readLock().release();
        other.readLock().release();
        step("write", () -> other.writeLock().acquire(20, TimeUnit.SECONDS));
        step("downgrade", () -> other.readLock().acquire(20, TimeUnit.SECONDS));
        step("no read", () -> ours.readLock().acquire(200, TimeUnit.MILLISECONDS));
        other.writeLock().release();
        other.readLock().release();

        InterProcessSemaphoreV2 semaphore = new InterProcessSemaphoreV2(a, "/semaphore", 2);
        InterProcessSemaphoreV2 same = new InterProcessSemaphoreV2(b, "/semaphore", 2);
        Lease first = semaphore.acquire();
        Lease second = same.acquire(20, TimeUnit.SECONDS);
        step("two leases", () -> first != null && second != null);
        step("no third", () -> same.acquire(200, TimeUnit.MILLISECONDS) == null);
        Future<Lease> third = background.submit(() -> same.acquire(20, TimeUnit.SECONDS));
        semaphore.returnLease(first);
        step("third after a return", () -> { same.returnLease(third.get(20, TimeUnit.SECONDS)); return "done"; });
        same.returnLease(second);
        InterProcessSemaphoreMutex plain = new InterProcessSemaphoreMutex(a, "/plain");
        step("semaphore mutex", () -> plain.acquire(20, TimeUnit.SECONDS));
        step("not reentrant", () -> plain.acquire(200, TimeUnit.MILLISECONDS));
        plain.release();
        InterProcessMultiLock several = new InterProcessMultiLock(a, Arrays.asList("/one", "/two"));
        step("several locks", () -> several.acquire(20, TimeUnit.SECONDS));
        several.release();
    }

    void leaders() throws Exception {
        LeaderLatch mine = new LeaderLatch(a, "/latch", "a");
        LeaderLatch theirs = new LeaderLatch(b, "/latch", "b");
        mine.start();
        step("a leads", () -> mine.await(20, TimeUnit.SECONDS));
        theirs.start();
        await("both take part", () -> mine.getParticipants().size() == 2);
        step("b does not", () -> theirs.hasLeadership());
        step("b knows", () -> theirs.getLeader().getId());
        mine.close();
        step("b leads", () -> theirs.await(20, TimeUnit.SECONDS));
        theirs.close();

        List<String> order = new CopyOnWriteArrayList<>();
        CountDownLatch inside = new CountDownLatch(1);
        CountDownLatch leave = new CountDownLatch(1);
        CountDownLatch both = new CountDownLatch(2);
        LeaderSelector first = selector(a, "a", order, inside, leave, both);
        first.start();
        step("a selected", () -> inside.await(20, TimeUnit.SECONDS));
        LeaderSelector second = selector(b, "b", order, inside, leave, both);
        second.start();
        await("b waits", () -> first.getParticipants().size() == 2);
        leave.countDown();
        step("both led", () -> both.await(20, TimeUnit.SECONDS));
        step("in order", () -> String.join(",", order));
        first.close();
        second.close();
    }

    LeaderSelector selector(CuratorFramework client, String name, List<String> order, CountDownLatch inside, CountDownLatch leave, CountDownLatch both) {
        LeaderSelector selector = new LeaderSelector(client, "/selector", new LeaderSelectorListenerAdapter() {
            @Override
            public void takeLeadership(CuratorFramework framework) throws Exception {
                order.add(name);
                inside.countDown();
                leave.await(20, TimeUnit.SECONDS);
                both.countDown();
            }
        });
        selector.setId(name);
        return selector;
    }

    void caches() throws Exception {
        List<String> seen = new CopyOnWriteArrayList<>();
        CuratorCache cache = CuratorCache.build(a, "/cache");
        cache.listenable().addListener(CuratorCacheListener.builder()
            .forCreates(node -> seen.add("created " + node.getPath() + " " + show(node.getData())))
            .forChanges((old, node) -> seen.add("changed " + node.getPath() + " " + show(node.getData())))
            .forDeletes(node -> seen.add("deleted " + node.getPath()))
            .forInitialized(() -> seen.add("initialized")).build());
        b.create().forPath("/cache", b("root"));
        b.create().forPath("/cache/early", b("e"));
        cache.start();
        awaitSeen("cache", seen, 3);
        b.create().forPath("/cache/x", b("1"));
        awaitSeen("cache", seen, 1);
        b.setData().forPath("/cache/x", b("2"));
        awaitSeen("cache", seen, 1);
        b.create().forPath("/cache/x/y", b("3"));
        awaitSeen("cache", seen, 1);
        b.delete().forPath("/cache/x/y");
        awaitSeen("cache", seen, 1);
        b.delete().forPath("/cache/x");
        awaitSeen("cache", seen, 1);
        step("content", () -> cache.size() + " " + show(cache.get("/cache/early").get().getData()));
        cache.close();

        b.create().forPath("/children");
        b.create().forPath("/children/a", b("1"));
        PathChildrenCache children = new PathChildrenCache(a, "/children", true);
        children.getListenable().addListener((client, event) -> {
            if (event.getData() != null) {
                seen.add(event.getType() + " " + event.getData().getPath() + " " + show(event.getData().getData()));
            }
        });
        children.start(PathChildrenCache.StartMode.BUILD_INITIAL_CACHE);
        step("initial", () -> children.getCurrentData().size());
        b.create().forPath("/children/b", b("2"));
        awaitSeen("children", seen, 1);
        b.setData().forPath("/children/a", b("3"));
        awaitSeen("children", seen, 1);
        b.delete().forPath("/children/b");
        awaitSeen("children", seen, 1);
        children.close();

        TreeCache tree = new TreeCache(a, "/cache");
        CountDownLatch ready = new CountDownLatch(1);
        tree.getListenable().addListener((client, event) -> {
            if (event.getType() == org.apache.curator.framework.recipes.cache.TreeCacheEvent.Type.INITIALIZED) {
                ready.countDown();
            } else if (ready.getCount() == 0 && event.getData() != null) {
                seen.add(event.getType() + " " + event.getData().getPath());
            }
        });
        tree.start();
        step("tree ready", () -> ready.await(20, TimeUnit.SECONDS));
        b.create().creatingParentsIfNeeded().forPath("/cache/deep/er", b("1"));
        awaitSeen("tree", seen, 2);
        b.delete().forPath("/cache/deep/er");
        awaitSeen("tree", seen, 1);
        tree.close();
    }

    void awaitSeen(String name, List<String> seen, int count) throws Exception {
        long deadline = System.nanoTime() + LIMIT_MS * 1_000_000;
        while (seen.size() < count && System.nanoTime() < deadline) {
            Thread.sleep(5);
        }
        for (String line : seen) {
            say(name + ": " + line);
        }
        seen.clear();
    }

    void nodes() throws Exception {
        PersistentNode node = new PersistentNode(a, CreateMode.EPHEMERAL, false, "/node", b("1"));
        node.start();
        step("created", () -> node.waitForInitialCreate(20, TimeUnit.SECONDS));
        step("data", () -> b.getData().forPath("/node"));
        node.setData(b("2"));
        await("changed", () -> "2".equals(new String(b.getData().forPath("/node"))));
        b.delete().forPath("/node");
        await("created again", () -> b.checkExists().forPath("/node") != null);
        node.close();
        step("gone", () -> b.checkExists().forPath("/node"));
        PersistentTtlNode ttl = new PersistentTtlNode(a, "/ttl-node", 60_000, b("x"));
        ttl.start();
        step("TTL node", () -> ttl.waitForInitialCreate(20, TimeUnit.SECONDS));
        step("its data", () -> ttl.getData());
        ttl.close();
        GroupMember first = new GroupMember(a, "/group", "a", b("1"));
        GroupMember second = new GroupMember(b, "/group", "b", b("2"));
        first.start();
        second.start();
        await("two members", () -> first.getCurrentMembers().size() == 2 && second.getCurrentMembers().size() == 2);
        second.close();
        await("one member", () -> first.getCurrentMembers().size() == 1);
        first.close();
        // Reaped by the server some time after the last child has gone.
        b.create().withMode(CreateMode.CONTAINER).forPath("/container");
        b.create().forPath("/container/child");
        b.delete().forPath("/container/child");
        await("container reaped", () -> b.checkExists().forPath("/container") == null);
        b.create().withTtl(300).withMode(CreateMode.PERSISTENT_WITH_TTL).forPath("/short");
        await("TTL reaped", () -> b.checkExists().forPath("/short") == null);
    }

    void counters() throws Exception {
        SharedCount mine = new SharedCount(a, "/count", 5);
        SharedCount theirs = new SharedCount(b, "/count", 7);
        mine.start();
        theirs.start();
        step("count", () -> mine.getCount() + " " + theirs.getCount());
        mine.setCount(9);
        await("the other sees it", () -> theirs.getCount() == 9);
        step("try", () -> theirs.trySetCount(theirs.getVersionedValue(), 10));
        await("seen here", () -> mine.getCount() == 10);
        mine.close();
        theirs.close();
        DistributedAtomicLong number = new DistributedAtomicLong(a, "/atomic", new RetryOneTime(10));
        DistributedAtomicLong same = new DistributedAtomicLong(b, "/atomic", new RetryOneTime(10));
        step("increment", () -> value(number.increment()));
        step("add", () -> value(same.add(41L)));
        step("compare and set", () -> value(number.compareAndSet(42L, 7L)));
        step("compare and not set", () -> value(same.compareAndSet(42L, 8L)));
        step("get", () -> value(same.get()));
    }

    static String value(AtomicValue<Long> value) throws Exception {
        return value.succeeded() + " " + value.preValue() + " " + value.postValue();
    }

    void barriers() throws Exception {
        DistributedBarrier barrier = new DistributedBarrier(a, "/barrier");
        barrier.setBarrier();
        step("in vain", () -> new DistributedBarrier(b, "/barrier").waitOnBarrier(200, TimeUnit.MILLISECONDS));
        Future<Boolean> passing = background.submit(() -> new DistributedBarrier(b, "/barrier").waitOnBarrier(20, TimeUnit.SECONDS));
        barrier.removeBarrier();
        step("passed", () -> passing.get(20, TimeUnit.SECONDS));
        DistributedDoubleBarrier first = new DistributedDoubleBarrier(a, "/double", 2);
        DistributedDoubleBarrier second = new DistributedDoubleBarrier(b, "/double", 2);
        Future<Boolean> entering = background.submit(() -> first.enter(20, TimeUnit.SECONDS));
        step("second enters", () -> second.enter(20, TimeUnit.SECONDS));
        step("first entered", () -> entering.get(20, TimeUnit.SECONDS));
        Future<Boolean> leaving = background.submit(() -> first.leave(20, TimeUnit.SECONDS));
        step("second leaves", () -> second.leave(20, TimeUnit.SECONDS));
        step("first left", () -> leaving.get(20, TimeUnit.SECONDS));
    }

    void queues() throws Exception {
        SimpleDistributedQueue simple = new SimpleDistributedQueue(a, "/simple");
        SimpleDistributedQueue other = new SimpleDistributedQueue(b, "/simple");
        for (String item : Arrays.asList("1", "2", "3")) {
            simple.offer(b(item));
        }
        step("peek", () -> other.peek());
        step("poll", () -> other.poll());
        step("take", () -> simple.take());
        step("remove", () -> other.remove());
        step("empty", () -> simple.poll(100, TimeUnit.MILLISECONDS));
        List<String> taken = Collections.synchronizedList(new ArrayList<>());
        CountDownLatch all = new CountDownLatch(5);
        DistributedQueue<String> queue = QueueBuilder.builder(a, new QueueConsumer<String>() {
            @Override
            public void consumeMessage(String message) {
                taken.add(message);
                all.countDown();
            }

            @Override
            public void stateChanged(CuratorFramework client, ConnectionState state) {
            }
        }, new QueueSerializer<String>() {
            @Override
            public byte[] serialize(String item) {
                return b(item);
            }

            @Override
            public String deserialize(byte[] bytes) {
                return new String(bytes);
            }
        }, "/queue").buildQueue();
        queue.start();
        for (int number = 0; number < 5; number++) {
            queue.put("item" + number);
        }
        step("all taken", () -> all.await(20, TimeUnit.SECONDS));
        step("in order", () -> String.join(",", taken));
        queue.close();
    }

    void reconnect() throws Exception {
        CuratorFramework cut = start(proxied);
        List<String> states = new CopyOnWriteArrayList<>();
        cut.getConnectionStateListenable().addListener((client, state) -> {
            if (state != ConnectionState.CONNECTED) { // may or may not have been told already
                states.add(state.toString());
            }
        });
        CuratorCache cache = CuratorCache.build(cut, "/again");
        List<String> seen = new CopyOnWriteArrayList<>();
        cache.listenable().addListener(CuratorCacheListener.builder()
            .forAll((type, old, node) -> seen.add(type + " " + (node == null ? old : node).getPath())).build());
        b.create().forPath("/again", b("1"));
        cache.start();
        awaitSeen("before", seen, 1);
        InterProcessMutex mutex = new InterProcessMutex(cut, "/cut-mutex");
        step("locked", () -> mutex.acquire(20, TimeUnit.SECONDS));
        proxy("hold");
        b.create().forPath("/again/missed", b("2"));
        proxy("release");
        await("reconnected", () -> states.contains("RECONNECTED"));
        awaitSeen("after", seen, 1);
        b.create().forPath("/again/seen", b("3"));
        awaitSeen("after", seen, 1);
        step("still locked", () -> b.getChildren().forPath("/cut-mutex").size());
        step("states", () -> String.join(",", states));
        step("connect string", () -> cut.getZookeeperClient().getCurrentConnectionString().equals(proxied));
        mutex.release();
        cache.close();
        cut.close();
    }
}
