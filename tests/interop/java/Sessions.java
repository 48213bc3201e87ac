import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/** A session's life as the Java client sees it: resumed, refused, expired, closed. */
public class Sessions extends Script {
    Sessions(String[] arguments) {
        super(arguments);
    }

    public static void main(String[] arguments) throws Exception {
        Sessions script = new Sessions(arguments);
        script.resume();
        script.expire();
        script.close();
        done();
    }

    static String ephemeral(ZooKeeper zk, String path) throws Exception {
        return zk.create(path, new byte[0], Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
    }

    void resume() throws Exception {
        Events first = new Events("first");
        ZooKeeper a = connect(proxied, SESSION_MS, first);
        ephemeral(a, "/resumed");
        // The proxy lets nobody in, so that the first client cannot come back by itself.
        proxy("hold");
        first.await(KeeperState.Disconnected);
        Events second = new Events("second");
        ZooKeeper b = new ZooKeeper(direct, SESSION_MS, second, a.getSessionId(), a.getSessionPasswd());
        second.print();
        step("same session", () -> a.getSessionId() == b.getSessionId());
        step("owner", () -> b.exists("/resumed", false).getEphemeralOwner() == b.getSessionId());
        step("ephemerals", () -> b.getEphemerals());
        Events wrong = new Events("wrong password");
        new ZooKeeper(direct, SESSION_MS, wrong, 0x5555, new byte[16]);
        wrong.print();
        b.close();
        proxy("release");
        first.print();
        step("the first after the second closed", () -> a.exists("/", false));
    }

    void expire() throws Exception {
        Events events = new Events("short");
        ZooKeeper observer = connect(direct);
        ZooKeeper a = connect(proxied, 1_000, events);
        ephemeral(a, "/expires");
        Events watch = new Events("watch");
        observer.exists("/expires", watch);
        proxy("hold");
        watch.print();
        step("gone", () -> observer.exists("/expires", false));
        proxy("release");
        events.print();
        events.print();
        step("after expiry", () -> a.exists("/", false));
        observer.close();
    }

    void close() throws Exception {
        Events events = new Events("closing");
        ZooKeeper a = connect(direct, SESSION_MS, events);
        ZooKeeper b = connect(direct);
        ephemeral(a, "/closes");
        Events watch = new Events("watch");
        b.exists("/closes", watch);
        a.close();
        watch.print();
        step("after close", () -> a.exists("/", false));
        Events resumed = new Events("resumed");
        new ZooKeeper(direct, SESSION_MS, resumed, a.getSessionId(), a.getSessionPasswd());
        resumed.print();
        b.close();
    }
}
