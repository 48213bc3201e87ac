import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.admin.ZooKeeperAdmin;
import org.apache.zookeeper.cli.DelQuotaCommand;
import org.apache.zookeeper.cli.ListQuotaCommand;
import org.apache.zookeeper.cli.SetQuotaCommand;
import org.apache.zookeeper.StatsTrack;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;
import org.apache.zookeeper.server.auth.DigestAuthenticationProvider;

/** Every operation of the Java client, results and errors. */
public class Operations extends Script {
    Operations(String[] arguments) {
        super(arguments);
    }

    static byte[] b(String text) {
        return text.getBytes();
    }

    public static void main(String[] arguments) throws Exception {
        new Operations(arguments).run();
        done();
    }

    void run() throws Exception {
        ZooKeeper zk = connect(direct);
        creates(zk);
        reads(zk);
        transactions(zk);
        lists(zk);
        quotas(zk);
        rest(zk);
        zk.close();
    }

    void creates(ZooKeeper zk) throws Exception {
        for (CreateMode mode : CreateMode.values()) {
            String path = "/create-" + mode;
            if (mode.isTTL()) {
                step("create " + mode, () -> zk.create(path, b("x"), Ids.OPEN_ACL_UNSAFE, mode, new Stat(), 60_000));
                step("create without a TTL " + mode, () -> zk.create(path + "-none", b("x"), Ids.OPEN_ACL_UNSAFE, mode));
                continue;
            }
            step("create " + mode, () -> zk.create(path, b("x"), Ids.OPEN_ACL_UNSAFE, mode));
            Stat stat = new Stat();
            step("create2 " + mode, () -> zk.create(path + "-2", b("x"), Ids.OPEN_ACL_UNSAFE, mode, stat));
            step("its stat", () -> stat);
        }
        step("TTL on a mode without", () -> zk.create("/ttl", b(""), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, new Stat(), 5));
        step("null data", () -> zk.create("/null", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        step("null data read", () -> zk.getData("/null", false, null));
        step("exists already", () -> zk.create("/null", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        step("no parent", () -> zk.create("/no/parent", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        step("below an ephemeral", () -> zk.create("/create-EPHEMERAL/x", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        step("empty acl", () -> zk.create("/acl", null, new ArrayList<>(), CreateMode.PERSISTENT));
        step("creator acl of nobody", () -> zk.create("/acl", null, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT));
        step("children of the root", () -> zk.getChildren("/", false));
    }

    void reads(ZooKeeper zk) throws Exception {
        Stat stat = new Stat();
        step("exists", () -> zk.exists("/null", false));
        step("exists not", () -> zk.exists("/nothing", false));
        step("get", () -> show(zk.getData("/create-PERSISTENT", false, stat)) + show(stat));
        step("get the missing", () -> zk.getData("/nothing", false, stat));
        step("set", () -> zk.setData("/null", b("data"), 0));
        step("set at a wrong version", () -> zk.setData("/null", b("data"), 0));
        step("set at any version", () -> zk.setData("/null", b("more data"), -1));
        step("set the missing", () -> zk.setData("/nothing", b(""), -1));
        step("children with stat", () -> show(zk.getChildren("/zookeeper", false, stat)) + show(stat));
        step("children of the missing", () -> zk.getChildren("/nothing", false));
        step("descendants", () -> zk.getAllChildrenNumber("/"));
        step("descendants of the missing", () -> zk.getAllChildrenNumber("/nothing"));
        step("ephemerals", () -> zk.getEphemerals());
        step("ephemerals by prefix", () -> zk.getEphemerals("/create-EPHEMERAL-"));
        step("delete at a wrong version", () -> { zk.delete("/null", 7); return "done"; });
        step("delete", () -> { zk.delete("/null", 2); return "done"; });
        step("delete the missing", () -> { zk.delete("/null", -1); return "done"; });
        step("delete a parent", () -> { zk.delete("/zookeeper", -1); return "done"; });
        step("who am I", () -> zk.whoAmI());
        step("large", () -> zk.create("/large", new byte[1_048_000], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        step("large read", () -> zk.getData("/large", false, null));
    }

    void transactions(ZooKeeper zk) throws Exception {
        step("multi", () -> zk.multi(Arrays.asList(
            Op.create("/m", b("1"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
            Op.check("/m", 0),
            Op.setData("/m", b("22"), 0),
            Op.create("/m/k-", b(""), Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL),
            Op.create("/m/k-", b(""), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL),
            Op.delete("/m/k-0000000001", -1))));
        step("multi container and TTL", () -> zk.multi(Arrays.asList(
            Op.create("/m/container", b(""), Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER),
            Op.create("/m/ttl", b(""), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, 60_000))));
        step("multi that fails", () -> zk.multi(Arrays.asList(
            Op.setData("/m", b("3"), -1), Op.delete("/nothing", -1), Op.delete("/m", -1))));
        step("multi with a failing check", () -> zk.multi(Arrays.asList(Op.check("/m", 9), Op.setData("/m", b("3"), -1))));
        step("empty multi", () -> zk.multi(Collections.emptyList()));
        step("transaction", () -> zk.transaction()
            .create("/t", b(""), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT).setData("/t", b("x"), 0).check("/t", 1).delete("/t", 1).commit());
        step("multi read", () -> zk.multi(Arrays.asList(
            Op.getData("/m"), Op.getChildren("/m"), Op.getData("/nothing"), Op.getChildren("/nothing"))));
        step("reads and writes", () -> zk.multi(Arrays.asList(Op.getData("/m"), Op.setData("/m", b(""), -1))));
        step("after all", () -> zk.exists("/m", false));
    }

    void lists(ZooKeeper zk) throws Exception {
        ACL bob = new ACL(Perms.READ | Perms.ADMIN, new Id("digest", DigestAuthenticationProvider.generateDigest("bob:secret")));
        step("create for bob", () -> zk.create("/bob", b("his"), Collections.singletonList(bob), CreateMode.PERSISTENT));
        step("not bob reads", () -> zk.getData("/bob", false, null));
        step("not bob asks for the acl", () -> zk.getACL("/bob", new Stat()));
        step("not bob sets the acl", () -> zk.setACL("/bob", Ids.OPEN_ACL_UNSAFE, -1));
        zk.addAuthInfo("digest", b("bob:secret"));
        step("bob reads", () -> zk.getData("/bob", false, null));
        step("bob writes", () -> zk.setData("/bob", b(""), -1));
        step("bob's acl", () -> zk.getACL("/bob", null));
        step("bob is", () -> zk.whoAmI());
        step("creator acl", () -> zk.create("/bobs", b(""), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT));
        step("as stored", () -> zk.getACL("/bobs", null));
        List<ACL> two = Arrays.asList(bob, new ACL(Perms.READ, Ids.ANYONE_ID_UNSAFE));
        step("set acl", () -> zk.setACL("/bob", two, 0));
        step("set acl at a wrong version", () -> zk.setACL("/bob", two, 0));
        step("set an invalid acl", () -> zk.setACL("/bob", Collections.singletonList(new ACL(31, new Id("ip", "nowhere"))), -1));
        step("set acl on the missing", () -> zk.setACL("/nothing", two, -1));
        ZooKeeper other = connect(direct);
        step("another sees", () -> other.getACL("/bob", null));
        step("another reads", () -> other.getData("/bob", false, null));
        step("another cannot read", () -> other.getData("/bobs", false, null));
        other.close();
    }

    void quotas(ZooKeeper zk) throws Exception {
        zk.create("/q", b("12345"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zk.create("/q/a", b("123"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        StatsTrack limits = new StatsTrack();
        limits.setCount(3);
        limits.setBytes(100);
        limits.setCountHardLimit(-1);
        limits.setByteHardLimit(-1);
        step("set a quota", () -> SetQuotaCommand.createQuota(zk, "/q", limits));
        step("children", () -> zk.getChildren("/zookeeper/quota/q", false));
        step("limits", () -> zk.getData("/zookeeper/quota/q/zookeeper_limits", false, null));
        step("usage", () -> zk.getData("/zookeeper/quota/q/zookeeper_stats", false, null));
        step("one more", () -> zk.create("/q/b", b("1"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        step("usage", () -> zk.getData("/zookeeper/quota/q/zookeeper_stats", false, null));
        step("over the soft limit", () -> zk.create("/q/c", b(""), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        step("larger", () -> zk.setData("/q/a", b("1234567890"), -1).getVersion());
        step("usage", () -> zk.getData("/zookeeper/quota/q/zookeeper_stats", false, null));
        step("smaller", () -> zk.setData("/q/a", b(""), -1).getVersion());
        step("one less", () -> { zk.delete("/q/b", -1); return "done"; });
        step("in a multi", () -> zk.multi(Arrays.asList(
            Op.create("/q/m", b("ab"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT), Op.setData("/q", b("1"), -1), Op.delete("/q/c", -1))).size());
        step("usage", () -> zk.getData("/zookeeper/quota/q/zookeeper_stats", false, null));
        step("list", () -> ListQuotaCommand.listQuota(zk, "/q"));
        step("nested", () -> SetQuotaCommand.createQuota(zk, "/q/a", limits));
        step("another limit", () -> SetQuotaCommand.createQuota(zk, "/q", limits));
        step("delete the quota", () -> DelQuotaCommand.delQuota(zk, "/q", limits));
        step("limits", () -> zk.getData("/zookeeper/quota/q/zookeeper_limits", false, null));
    }

    void rest(ZooKeeper zk) throws Exception {
        step("config", () -> zk.getConfig(false, new Stat()));
        step("config stat", () -> zk.exists("/zookeeper/config", false));
        ZooKeeperAdmin admin = new ZooKeeperAdmin(direct, SESSION_MS, new Events("admin"));
        step("reconfigure", () -> admin.reconfigure("server.2=localhost:1:2:participant;3", null, null, -1, new Stat()));
        step("reconfigure to nothing", () -> admin.reconfigure((String) null, null, null, -1, new Stat()));
        admin.close();
        step("sync", () -> { flush(zk); return "done"; });
        step("state", () -> zk.getState());
        step("timeout", () -> zk.getSessionTimeout());
        ZooKeeper chrooted = connect(direct + "/m");
        step("chroot: children", () -> chrooted.getChildren("/", false));
        step("chroot: create", () -> chrooted.create("/c", b(""), Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL));
        step("chroot: ephemerals", () -> chrooted.getEphemerals());
        chrooted.close();
        step("gone with the session", () -> zk.exists("/m/c", false));
        ZooKeeper wrong = connect(direct);
        wrong.addAuthInfo("no such scheme", b("x"));
        step("after a refused auth", () -> wrong.exists("/", false));
        wrong.close();
    }
}
