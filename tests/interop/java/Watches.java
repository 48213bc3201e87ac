import java.util.Arrays;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/** Watches of every kind, in the order the client hands them out, and across a reconnect. */
public class Watches extends Script {
    Watches(String[] arguments) {
        super(arguments);
    }

    public static void main(String[] arguments) throws Exception {
        Watches script = new Watches(arguments);
        script.oneShot();
        script.persistent();
        script.removal();
        script.reconnect();
        script.reconnectWithOneShots();
        done();
    }

    static String create(ZooKeeper zk, String path) throws Exception {
        return zk.create(path, new byte[0], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    }

    void oneShot() throws Exception {
        ZooKeeper a = connect(direct);
        ZooKeeper b = connect(direct);
        Events e = new Events("one-shot");
        step("exists on the missing", () -> a.exists("/w", e));
        create(b, "/w");
        e.print();
        step("get", () -> a.getData("/w", e, null));
        step("exists", () -> a.exists("/w", e));
        b.setData("/w", "1".getBytes(), -1);
        e.printAll(a);
        step("own set", () -> a.getData("/w", e, null));
        a.setData("/w", "2".getBytes(), -1);
        e.printAll(a);
        step("children", () -> a.getChildren("/w", e));
        create(b, "/w/k");
        e.printAll(a);
        step("children", () -> a.getChildren("/w", e));
        step("data of the child", () -> a.getData("/w/k", e, null));
        step("children of the child", () -> a.getChildren("/w/k", e));
        b.delete("/w/k", -1);
        e.printAll(a);
        // Two watchers on one path: the library tells both of the one event it gets.
        Events f = new Events("second");
        a.getData("/w", e, null);
        a.getData("/w", f, null);
        a.getChildren("/w", f);
        b.multi(Arrays.asList(
            Op.setData("/w", "3".getBytes(), -1),
            Op.create("/w/m", new byte[0], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT)));
        e.printAll(a);
        f.printAll(a);
        b.close();
        a.close();
    }

    void persistent() throws Exception {
        ZooKeeper a = connect(direct);
        ZooKeeper b = connect(direct);
        Events p = new Events("persistent");
        Events r = new Events("recursive");
        a.addWatch("/p", p, AddWatchMode.PERSISTENT);
        a.addWatch("/r", r, AddWatchMode.PERSISTENT_RECURSIVE);
        for (String root : new String[] {"/p", "/r"}) {
            create(b, root);
            create(b, root + "/x");
            create(b, root + "/x/y");
            b.setData(root, new byte[1], -1);
            b.setData(root + "/x/y", new byte[1], -1);
            b.delete(root + "/x/y", -1);
            b.multi(Arrays.asList(Op.setData(root, new byte[2], -1), Op.delete(root + "/x", -1)));
            b.delete(root, -1);
            create(b, root);
        }
        flush(b);
        p.printAll(a);
        r.printAll(a);
        b.close();
        a.close();
    }

    void removal() throws Exception {
        ZooKeeper a = connect(direct);
        create(a, "/remove");
        Events e = new Events("removal");
        step("nothing to remove", () -> { a.removeWatches("/remove", e, Watcher.WatcherType.Data, false); return "done"; });
        a.getData("/remove", e, null);
        step("remove data", () -> { a.removeWatches("/remove", e, Watcher.WatcherType.Data, false); return "done"; });
        e.printAll(a);
        a.getChildren("/remove", e);
        step("remove children", () -> { a.removeAllWatches("/remove", Watcher.WatcherType.Children, false); return "done"; });
        e.printAll(a);
        a.addWatch("/remove", e, AddWatchMode.PERSISTENT);
        step("remove any", () -> { a.removeAllWatches("/remove", Watcher.WatcherType.Any, false); return "done"; });
        e.printAll(a);
        a.addWatch("/remove", e, AddWatchMode.PERSISTENT_RECURSIVE);
        step("remove this one", () -> { a.removeWatches("/remove", e, Watcher.WatcherType.Any, false); return "done"; });
        e.printAll(a);
        a.setData("/remove", new byte[1], -1);
        e.printAll(a);
        a.close();
    }

    void reconnect() throws Exception {
        Events state = new Events("state");
        ZooKeeper a = connect(proxied, SESSION_MS, state);
        ZooKeeper b = connect(direct);
        for (String path : new String[] {"/same", "/changed", "/deleted", "/kids", "/same-kids", "/tree"}) {
            create(b, path);
        }
        Events e = new Events("reconnected");
        Events t = new Events("tree");
        a.getData("/same", e, null);
        a.getData("/changed", e, null);
        a.getData("/deleted", e, null);
        a.exists("/created", e);
        a.exists("/never", e);
        a.getChildren("/kids", e);
        a.getChildren("/same-kids", e);
        a.addWatch("/tree", t, AddWatchMode.PERSISTENT_RECURSIVE);
        long session = a.getSessionId();
        proxy("hold");
        state.await(KeeperState.Disconnected);
        b.setData("/changed", new byte[1], -1);
        b.delete("/deleted", -1);
        create(b, "/created");
        create(b, "/kids/k");
        create(b, "/tree/missed");
        proxy("release");
        state.await(KeeperState.SyncConnected);
        say("same session: " + (session == a.getSessionId()));
        // The first answer comes after the client has set its watches again.
        step("alive", () -> a.exists("/same", false));
        flush(a);
        e.clear(); // session events, and the missed ones in no order: checked raw
        b.setData("/same", new byte[1], -1);
        b.setData("/changed", new byte[2], -1);
        create(b, "/never");
        create(b, "/same-kids/k");
        create(b, "/tree/seen");
        flush(b);
        e.printSorted(a);
        t.printAll(a);
        // Again, now with what the library tells its watchers about the connection.
        Events again = new Events("again");
        a.getData("/same", again, null);
        a.getData("/changed", again, null);
        a.exists("/soon", again);
        proxy("hold");
        state.await(KeeperState.Disconnected);
        b.setData("/changed", new byte[3], -1);
        create(b, "/soon");
        proxy("release");
        state.await(KeeperState.SyncConnected);
        step("alive again", () -> a.exists("/same", false));
        again.printSorted(a);
        b.close();
        a.close();
    }

    /** Without persistent watches the client sends the older setWatches. */
    void reconnectWithOneShots() throws Exception {
        Events state = new Events("state");
        ZooKeeper a = connect(proxied, SESSION_MS, state);
        ZooKeeper b = connect(direct);
        Events e = new Events("one-shots");
        create(b, "/older");
        a.getData("/older", e, null);
        a.exists("/older-missing", e);
        a.getChildren("/older", e);
        proxy("hold");
        state.await(KeeperState.Disconnected);
        create(b, "/older/k");
        proxy("release");
        state.await(KeeperState.SyncConnected);
        b.setData("/older", new byte[1], -1);
        create(b, "/older-missing");
        step("alive", () -> a.exists("/older", false));
        e.printSorted(a);
        b.close();
        a.close();
    }
}
