import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Stat;

/**
 * What the scripts share: one transcript line per step, values that may differ between servers in
 * marks, and bounded waits. A script is told the server's address, a proxy's and its control port's.
 */
class Script {
    static final int SESSION_MS = 30_000;
    static final long LIMIT_MS = 20_000;

    final String direct;
    final String proxied;
    private final int control;
    private final PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    Script(String[] arguments) {
        direct = arguments[0];
        proxied = arguments[1];
        control = Integer.parseInt(arguments[2].substring(arguments[2].indexOf(':') + 1));
    }

    interface Step {
        Object run() throws Exception;
    }

    synchronized void say(String line) {
        out.println(line);
    }

    /** Runs one step and prints what it returns, or the error it ends with. */
    void step(String label, Step step) throws Exception {
        String result;
        try {
            result = show(step.run());
        } catch (KeeperException e) {
            result = "error " + e.code() + (e.getPath() == null ? "" : " " + e.getPath());
            if (e.getResults() != null) {
                result += " results " + show(e.getResults());
            }
        } catch (IllegalArgumentException | IllegalStateException | UnsupportedOperationException e) {
            result = "error " + e.getClass().getSimpleName();
        }
        say(label + ": " + result);
    }

    /** Ends the program: scripts leave threads behind that must not delay it. */
    static void done() {
        System.out.flush();
        System.exit(0);
    }

    void proxy(String command) throws Exception {
        try (Socket socket = new Socket("127.0.0.1", control)) {
            socket.setSoTimeout((int) LIMIT_MS);
            socket.getOutputStream().write((command + "\n").getBytes(StandardCharsets.UTF_8));
            String answer = new BufferedReader(new InputStreamReader(socket.getInputStream())).readLine();
            if (!"done".equals(answer)) {
                throw new IllegalStateException("the proxy answers " + answer);
            }
        }
    }

    static String zxid(long zxid) {
        return "{zxid:" + zxid + "}";
    }

    static String session(long id) {
        return "{session:" + id + "}";
    }

    static String show(Object value) {
        if (value == null) {
            return "null";
        }
        if (value instanceof byte[]) {
            byte[] bytes = (byte[]) value;
            return bytes.length > 200 ? bytes.length + " bytes" : "'" + new String(bytes, StandardCharsets.UTF_8) + "'";
        }
        if (value instanceof Stat) {
            Stat s = (Stat) value;
            return "[c=" + zxid(s.getCzxid()) + " m=" + zxid(s.getMzxid()) + " p=" + zxid(s.getPzxid())
                + " v=" + s.getVersion() + "," + s.getCversion() + "," + s.getAversion()
                + " owner=" + session(s.getEphemeralOwner()) + " length=" + s.getDataLength()
                + " children=" + s.getNumChildren() + " times={time:" + s.getCtime() + "}/{time:" + s.getMtime() + "}]";
        }
        if (value instanceof ACL) {
            ACL acl = (ACL) value;
            return acl.getPerms() + ":" + acl.getId().getScheme() + ":" + acl.getId().getId();
        }
        if (value instanceof org.apache.zookeeper.data.ClientInfo) {
            org.apache.zookeeper.data.ClientInfo info = (org.apache.zookeeper.data.ClientInfo) value;
            return info.getAuthScheme() + ":" + info.getUser();
        }
        if (value instanceof List) {
            List<String> shown = new ArrayList<>();
            boolean names = true; // of no promised order
            for (Object one : (List<?>) value) {
                shown.add(show(one));
                names &= one instanceof String || one instanceof org.apache.zookeeper.data.ClientInfo;
            }
            if (names) {
                Collections.sort(shown);
            }
            return shown.toString();
        }
        if (value instanceof org.apache.zookeeper.OpResult) {
            return showResult((org.apache.zookeeper.OpResult) value);
        }
        if (value instanceof WatchedEvent) {
            WatchedEvent e = (WatchedEvent) value;
            return e.getType() + " " + e.getState() + " " + e.getPath();
        }
        return value.toString();
    }

    private static String showResult(org.apache.zookeeper.OpResult result) {
        String shown = result.getClass().getSimpleName();
        if (result instanceof org.apache.zookeeper.OpResult.CreateResult) {
            org.apache.zookeeper.OpResult.CreateResult r = (org.apache.zookeeper.OpResult.CreateResult) result;
            return shown + " " + r.getPath() + " " + show(r.getStat());
        }
        if (result instanceof org.apache.zookeeper.OpResult.SetDataResult) {
            return shown + " " + show(((org.apache.zookeeper.OpResult.SetDataResult) result).getStat());
        }
        if (result instanceof org.apache.zookeeper.OpResult.GetDataResult) {
            org.apache.zookeeper.OpResult.GetDataResult r = (org.apache.zookeeper.OpResult.GetDataResult) result;
            return shown + " " + show(r.getData()) + " " + show(r.getStat());
        }
        if (result instanceof org.apache.zookeeper.OpResult.GetChildrenResult) {
            return shown + " " + show(((org.apache.zookeeper.OpResult.GetChildrenResult) result).getChildren());
        }
        if (result instanceof org.apache.zookeeper.OpResult.ErrorResult) {
            return shown + " " + KeeperException.Code.get(((org.apache.zookeeper.OpResult.ErrorResult) result).getErr());
        }
        return shown;
    }

    /** Collects events, and gives them out in order. */
    class Events implements Watcher {
        private final String name;
        private final BlockingQueue<WatchedEvent> queue = new LinkedBlockingQueue<>();

        Events(String name) {
            this.name = name;
        }

        @Override
        public void process(WatchedEvent event) {
            queue.add(event);
        }

        WatchedEvent take() throws InterruptedException {
            WatchedEvent event = queue.poll(LIMIT_MS, TimeUnit.MILLISECONDS);
            if (event == null) {
                throw new IllegalStateException(name + ": no event in time");
            }
            return event;
        }

        /** Waits for the next event and prints it. */
        void print() throws InterruptedException {
            say(name + " event: " + show(take()));
        }

        /** Prints all events that have come; a sync before makes sure that none is on its way. */
        void printAll(ZooKeeper zk) throws Exception {
            flush(zk);
            for (WatchedEvent event = queue.poll(); event != null; event = queue.poll()) {
                say(name + " event: " + show(event));
            }
        }

        /** As {@link #printAll}, where the order among the events means nothing. */
        void printSorted(ZooKeeper zk) throws Exception {
            flush(zk);
            List<String> lines = new ArrayList<>();
            for (WatchedEvent event = queue.poll(); event != null; event = queue.poll()) {
                lines.add(name + " event: " + show(event));
            }
            Collections.sort(lines);
            lines.forEach(Script.this::say);
        }

        /** Waits for a change of the connection, passing over other events. */
        void await(Watcher.Event.KeeperState state) throws InterruptedException {
            while (take().getState() != state) {
                continue;
            }
        }

        void clear() {
            queue.clear();
        }
    }

    /** Returns once everything the server sent before has been handed to the watchers. */
    static void flush(ZooKeeper zk) throws Exception {
        java.util.concurrent.CountDownLatch latch = new java.util.concurrent.CountDownLatch(1);
        zk.sync("/", (rc, path, context) -> latch.countDown(), null);
        if (!latch.await(LIMIT_MS, TimeUnit.MILLISECONDS)) {
            throw new IllegalStateException("no answer to a sync in time");
        }
    }

    /** A connected client whose session events have been taken from the queue. */
    ZooKeeper connect(String address, int timeoutMs, Events events) throws Exception {
        ZooKeeper zk = new ZooKeeper(address, timeoutMs, events);
        events.await(Watcher.Event.KeeperState.SyncConnected);
        return zk;
    }

    ZooKeeper connect(String address) throws Exception {
        return connect(address, SESSION_MS, new Events("default"));
    }
}
