import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.VersionedValue;
import org.apache.curator.retry.RetryNTimes;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.recipes.leader.LeaderElectionAware;
import org.apache.zookeeper.recipes.leader.LeaderElectionSupport;
import org.apache.zookeeper.recipes.lock.LockListener;
import org.apache.zookeeper.recipes.lock.WriteLock;

/**
 * Any number of contenders for locks and elections, by the recipes of Curator and of ZooKeeper itself.
 *
 * <p>A line on standard input is a command to one of them, `NAME COMMAND ARGUMENTS`; its answers are lines on standard
 * output, `NAME ANSWER`. Each contender has a thread and a session of its own, and obeys its commands in order:
 *
 * <pre>
 * open RECIPE PATH FOLDER ROLE SESSION_MS   opened
 * acquire                                   entered, or violation WHO
 * release                                   left
 * rounds N                                  done N, or violation WHO
 * close                                     closed
 * measure RECIPE PATH CONTENDERS SESSIONS WARMUP_MS SPAN_MS   figures PER_SECOND P50_US P99_US ENTERED
 * </pre>
 *
 * Any of them may answer `failed REASON`. The referee is the file system: who enters makes a file in FOLDER and then
 * looks whether there is one of somebody that it must not meet. With ROLE `alone` that is everybody, with `reader` those
 * who are alone, with `of-N` any but N - 1. The program ends with its input.
 */
public class Contender implements Runnable {
    static final long LIMIT_S = 60;
    /** How long a round lasts inside: long enough for somebody who is not kept out to come in. */
    static final long INSIDE_MS = 1;
    private static final PrintStream OUT = new PrintStream(System.out, false, StandardCharsets.UTF_8);

    private final String server;
    private final String name;
    final LinkedBlockingQueue<String[]> commands = new LinkedBlockingQueue<>();
    private Recipe recipe;
    private Referee referee;

    Contender(String server, String name) {
        this.server = server;
        this.name = name;
    }

    public static void main(String[] arguments) throws IOException {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        Map<String, Contender> contenders = new HashMap<>();
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            Contender contender = contenders.computeIfAbsent(words[0], name -> {
                Contender added = new Contender(arguments[0], name);
                daemon(added, name).start();
                return added;
            });
            contender.commands.add(Arrays.copyOfRange(words, 1, words.length));
        }
        System.exit(0);
    }

    static Thread daemon(Runnable work, String name) {
        Thread thread = new Thread(work, name);
        thread.setDaemon(true);
        return thread;
    }

    @Override
    public void run() {
        while (true) {
            String answer;
            try {
                answer = obey(commands.take());
            } catch (InterruptedException e) {
                return;
            } catch (Exception | LinkageError e) {
                answer = "failed " + e.toString().replace('\n', ' ');
            }
            synchronized (OUT) {
                OUT.println(name + " " + answer);
                OUT.flush();
            }
        }
    }

    private String obey(String[] command) throws Exception {
        switch (command[0]) {
            case "open":
                recipe = Recipe.open(command[1], new Session(server, Integer.parseInt(command[5])), command[2], name);
                referee = new Referee(Path.of(command[3]), command[4], name);
                return "opened";
            case "acquire": {
                recipe.enter();
                String met = referee.enter();
                return met.isEmpty() ? "entered" : "violation " + met;
            }
            case "release":
                referee.leave();
                recipe.leave();
                return "left";
            case "rounds": {
                int rounds = Integer.parseInt(command[1]);
                for (int round = 0; round < rounds; round++) {
                    recipe.enter();
                    String met = referee.enter();
                    Thread.sleep(INSIDE_MS);
                    referee.leave();
                    recipe.leave();
                    if (!met.isEmpty()) {
                        return "violation " + met;
                    }
                }
                return "done " + rounds;
            }
            case "close":
                recipe.session.close();
                return "closed";
            case "measure":
                return measure(command);
            default:
                return "failed there is no command " + command[0];
        }
    }

    /** Lets contenders enter and leave at once, again and again. A hand-over ends when the next has entered. */
    private String measure(String[] command) throws Exception {
        String path = command[2];
        int contenders = Integer.parseInt(command[3]);
        Session[] sessions = new Session[Integer.parseInt(command[4])];
        for (int i = 0; i < sessions.length; i++) {
            sessions[i] = new Session(server, 30_000);
        }
        List<Recipe> all = new ArrayList<>();
        for (int i = 0; i < contenders; i++) {
            all.add(Recipe.open(command[1], sessions[i % sessions.length], path, name + "-" + i));
        }
        AtomicLong left = new AtomicLong();
        AtomicLong entered = new AtomicLong();
        List<Long> handOvers = new ArrayList<>();
        long begin = System.nanoTime() + Long.parseLong(command[5]) * 1_000_000;
        long end = begin + Long.parseLong(command[6]) * 1_000_000;
        ExecutorService crowd = Executors.newCachedThreadPool(work -> daemon(work, "contender"));
        List<Future<Void>> running = new ArrayList<>();
        for (Recipe contender : all) {
            running.add(crowd.submit(() -> {
                while (System.nanoTime() < end) {
                    contender.enter();
                    long now = System.nanoTime();
                    entered.incrementAndGet();
                    long since = left.getAndSet(0);
                    // Only the one inside is here, so the list needs no lock of its own.
                    if (since != 0 && now >= begin && now < end) {
                        handOvers.add(now - since);
                    }
                    left.set(System.nanoTime());
                    contender.leave();
                }
                return null;
            }));
        }
        for (Future<Void> one : running) {
            one.get(LIMIT_S, TimeUnit.SECONDS);
        }
        for (Session session : sessions) {
            session.close();
        }
        long[] sorted = handOvers.stream().mapToLong(one -> one).sorted().toArray();
        if (sorted.length == 0) {
            return "failed nobody handed over";
        }
        return String.format("figures %.1f %.1f %.1f %d", sorted.length * 1e9 / (end - begin),
            sorted[sorted.length / 2] / 1e3, sorted[sorted.length * 99 / 100] / 1e3, entered.get());
    }
}

/** Sees who is inside by their files; knows nothing of servers. */
class Referee {
    private final Path folder;
    private final String role;
    private final Path own;

    Referee(Path folder, String role, String name) {
        this.folder = folder;
        this.role = role;
        this.own = folder.resolve(role + "." + name);
    }

    /** Who else is inside that must not be; usually nobody. Of two who meet, the later one to make its file sees it. */
    String enter() throws IOException {
        try {
            Files.createFile(own);
        } catch (FileAlreadyExistsException e) {
            return "itself";
        }
        List<String> met = new ArrayList<>();
        for (String other : new File(folder.toString()).list()) {
            boolean both = role.equals("reader") && other.startsWith("reader.");
            if (!both && !other.equals(own.getFileName().toString())) {
                met.add(other);
            }
        }
        boolean room = role.startsWith("of-") && met.size() < Integer.parseInt(role.substring(3));
        return room ? "" : String.join(",", met);
    }

    void leave() throws IOException {
        try {
            Files.delete(own);
        } catch (NoSuchFileException e) {
            // It was reported when it was not made.
        }
    }
}

/** One session, of whichever client the recipe wants. */
class Session {
    private final String server;
    private final int timeoutMs;
    private CuratorFramework curator;
    private ZooKeeper plain;

    Session(String server, int timeoutMs) {
        this.server = server;
        this.timeoutMs = timeoutMs;
    }

    synchronized CuratorFramework curator() throws Exception {
        if (curator == null) {
            curator = CuratorFrameworkFactory.builder().connectString(server).sessionTimeoutMs(timeoutMs)
                .connectionTimeoutMs(timeoutMs).retryPolicy(new RetryNTimes(10, 100)).build();
            curator.start();
            if (!curator.blockUntilConnected((int) Contender.LIMIT_S, TimeUnit.SECONDS)) {
                throw new TimeoutException("not connected");
            }
        }
        return curator;
    }

    synchronized ZooKeeper plain() throws Exception {
        if (plain == null) {
            CountDownLatch connected = new CountDownLatch(1);
            plain = new ZooKeeper(server, timeoutMs, event -> {
                if (event.getState() == org.apache.zookeeper.Watcher.Event.KeeperState.SyncConnected) {
                    connected.countDown();
                }
            });
            Recipe.await(connected, "not connected");
        }
        return plain;
    }

    synchronized void close() throws Exception {
        if (curator != null) {
            curator.close();
        }
        if (plain != null) {
            plain.close();
        }
    }
}

/** Something that one enters and leaves. */
abstract class Recipe {
    final Session session;

    Recipe(Session session) {
        this.session = session;
    }

    /** Waits until one is inside. */
    abstract void enter() throws Exception;

    abstract void leave() throws Exception;

    static Recipe open(String recipe, Session session, String path, String name) throws Exception {
        String[] parts = recipe.split(":");
        switch (parts[0]) {
            case "curator-mutex":
                return new CuratorLock(session, new InterProcessMutex(session.curator(), path));
            case "curator-read":
                return new CuratorLock(session, new InterProcessReadWriteLock(session.curator(), path).readLock());
            case "curator-write":
                return new CuratorLock(session, new InterProcessReadWriteLock(session.curator(), path).writeLock());
            case "curator-semaphore":
                return new Semaphore(session,
                    new InterProcessSemaphoreV2(session.curator(), path, Integer.parseInt(parts[1])));
            case "curator-latch":
                return new Latch(session, session.curator(), path, name);
            case "curator-selector":
                return new Selector(session, session.curator(), path, name);
            case "curator-barrier":
                return new CuratorBarrier(session, new DistributedBarrier(session.curator(), path));
            case "curator-together":
                return new Together(session,
                    new DistributedDoubleBarrier(session.curator(), path, Integer.parseInt(parts[1])));
            case "curator-count":
                return new Count(session, new SharedCount(session.curator(), path, 0));
            case "curator-number":
                return new AtomicNumber(session,
                    new DistributedAtomicLong(session.curator(), path, new RetryNTimes(100, 1)));
            case "zookeeper-lock":
                return new PlainLock(session, session.plain(), path);
            case "zookeeper-election":
                return new PlainElection(session, session.plain(), path, name);
            default:
                throw new IllegalArgumentException("there is no recipe " + recipe);
        }
    }

    static void await(CountDownLatch latch, String otherwise) throws Exception {
        if (!latch.await(Contender.LIMIT_S, TimeUnit.SECONDS)) {
            throw new TimeoutException(otherwise);
        }
    }
}

class CuratorLock extends Recipe {
    private final InterProcessLock lock;

    CuratorLock(Session session, InterProcessLock lock) {
        super(session);
        this.lock = lock;
    }

    @Override
    void enter() throws Exception {
        if (!lock.acquire(Contender.LIMIT_S, TimeUnit.SECONDS)) {
            throw new TimeoutException("not acquired");
        }
    }

    @Override
    void leave() throws Exception {
        lock.release();
    }
}

class Semaphore extends Recipe {
    private final InterProcessSemaphoreV2 semaphore;
    private Lease lease;

    Semaphore(Session session, InterProcessSemaphoreV2 semaphore) {
        super(session);
        this.semaphore = semaphore;
    }

    @Override
    void enter() throws Exception {
        lease = semaphore.acquire(Contender.LIMIT_S, TimeUnit.SECONDS);
        if (lease == null) {
            throw new TimeoutException("not acquired");
        }
    }

    @Override
    void leave() {
        semaphore.returnLease(lease);
    }
}

class Latch extends Recipe {
    private final CuratorFramework client;
    private final String path;
    private final String name;
    private LeaderLatch latch;

    Latch(Session session, CuratorFramework client, String path, String name) {
        super(session);
        this.client = client;
        this.path = path;
        this.name = name;
    }

    @Override
    void enter() throws Exception {
        // One that was closed cannot be started again.
        latch = new LeaderLatch(client, path, name);
        latch.start();
        if (!latch.await(Contender.LIMIT_S, TimeUnit.SECONDS)) {
            throw new TimeoutException("not elected");
        }
    }

    @Override
    void leave() throws Exception {
        latch.close();
    }
}

class Selector extends Recipe {
    private final LeaderSelector selector;
    private boolean started;
    private volatile CountDownLatch inside = new CountDownLatch(1);
    private volatile CountDownLatch done = new CountDownLatch(1);

    Selector(Session session, CuratorFramework client, String path, String name) {
        super(session);
        selector = new LeaderSelector(client, path, new LeaderSelectorListenerAdapter() {
            @Override
            public void takeLeadership(CuratorFramework framework) throws InterruptedException {
                CountDownLatch until = done;
                inside.countDown();
                until.await();
            }
        });
        selector.setId(name);
    }

    @Override
    void enter() throws Exception {
        inside = new CountDownLatch(1);
        done = new CountDownLatch(1);
        if (!started) {
            started = true;
            selector.start();
        } else {
            // The node of the last leadership is deleted after the listener has returned, and only then
            // can one queue again; nothing tells when.
            while (!selector.requeue()) {
                Thread.sleep(1);
            }
        }
        await(inside, "not elected");
    }

    @Override
    void leave() {
        done.countDown();
    }
}

/** To enter is to wait for it, to leave is to remove it. */
class CuratorBarrier extends Recipe {
    private final DistributedBarrier barrier;

    CuratorBarrier(Session session, DistributedBarrier barrier) {
        super(session);
        this.barrier = barrier;
    }

    @Override
    void enter() throws Exception {
        if (!barrier.waitOnBarrier(Contender.LIMIT_S, TimeUnit.SECONDS)) {
            throw new TimeoutException("not removed");
        }
    }

    @Override
    void leave() throws Exception {
        barrier.removeBarrier();
    }
}

class Together extends Recipe {
    private final DistributedDoubleBarrier barrier;

    Together(Session session, DistributedDoubleBarrier barrier) {
        super(session);
        this.barrier = barrier;
    }

    @Override
    void enter() throws Exception {
        if (!barrier.enter(Contender.LIMIT_S, TimeUnit.SECONDS)) {
            throw new TimeoutException("not all are there");
        }
    }

    @Override
    void leave() throws Exception {
        if (!barrier.leave(Contender.LIMIT_S, TimeUnit.SECONDS)) {
            throw new TimeoutException("not all have left");
        }
    }
}

/** To enter is to add one. */
class Count extends Recipe {
    private final SharedCount count;

    Count(Session session, SharedCount count) throws Exception {
        super(session);
        this.count = count;
        count.start();
    }

    @Override
    void enter() throws Exception {
        VersionedValue<Integer> seen = count.getVersionedValue();
        while (!count.trySetCount(seen, seen.getValue() + 1)) {
            seen = count.getVersionedValue();
        }
    }

    @Override
    void leave() {
    }
}

/** To enter is to add one. */
class AtomicNumber extends Recipe {
    private final DistributedAtomicLong number;

    AtomicNumber(Session session, DistributedAtomicLong number) {
        super(session);
        this.number = number;
    }

    @Override
    void enter() throws Exception {
        if (!number.increment().succeeded()) {
            throw new TimeoutException("others were always faster");
        }
    }

    @Override
    void leave() {
    }
}

class PlainLock extends Recipe {
    private static final long ASK_AGAIN_MS = 20;
    private final ZooKeeper client;
    private final String path;
    private WriteLock lock;

    PlainLock(Session session, ZooKeeper client, String path) {
        super(session);
        this.client = client;
        this.path = path;
    }

    @Override
    void enter() throws Exception {
        CountDownLatch inside = new CountDownLatch(1);
        lock = new WriteLock(client, path, ZooDefs.Ids.OPEN_ACL_UNSAFE, new LockListener() {
            @Override
            public void lockAcquired() {
                inside.countDown();
            }

            @Override
            public void lockReleased() {
            }
        });
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(Contender.LIMIT_S);
        // Where the one in front leaves between its list and its watch, it watches a znode that is gone, and
        // waits for ever: the application has to ask again.
        do {
            lock.lock();
            if (System.nanoTime() > deadline) {
                throw new TimeoutException("not acquired");
            }
        } while (!inside.await(ASK_AGAIN_MS, TimeUnit.MILLISECONDS));
    }

    @Override
    void leave() {
        // Each time it was asked it has left a watch, and each of these would lock again, unless it is closed.
        synchronized (lock) {
            lock.unlock();
            lock.close();
        }
    }
}

class PlainElection extends Recipe {
    private final ZooKeeper client;
    private final String path;
    private final String name;
    private LeaderElectionSupport election;

    PlainElection(Session session, ZooKeeper client, String path, String name) {
        super(session);
        this.client = client;
        this.path = path;
        this.name = name;
    }

    @Override
    void enter() throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(Contender.LIMIT_S);
        // It fails where another's offer goes between its list and its read of that: one has to begin again.
        while (!isElected(deadline)) {
            election.stop();
        }
    }

    private boolean isElected(long deadline) throws Exception {
        LinkedBlockingQueue<Boolean> outcome = new LinkedBlockingQueue<>();
        election = new LeaderElectionSupport();
        election.setZooKeeper(client);
        election.setRootNodeName(path);
        election.setHostName(name);
        LeaderElectionAware listener = event -> {
            if (event == LeaderElectionSupport.EventType.ELECTED_COMPLETE) {
                outcome.add(true);
            } else if (event == LeaderElectionSupport.EventType.FAILED) {
                outcome.add(false);
            }
        };
        election.addListener(listener);
        election.start();
        Boolean elected = outcome.poll(deadline - System.nanoTime(), TimeUnit.NANOSECONDS);
        if (elected == null) {
            throw new TimeoutException("not elected");
        }
        return elected;
    }

    @Override
    void leave() {
        election.stop();
    }
}
