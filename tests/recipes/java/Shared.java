import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.SharedValue;
import org.apache.curator.retry.RetryOneTime;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.recipes.queue.DistributedQueue;

/** Shared state by the recipes of Curator and of ZooKeeper: a command a line, an answer a line. */
public class Shared {
    private final CuratorFramework client;

    Shared(CuratorFramework client) {
        this.client = client;
    }

    public static void main(String[] arguments) throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(arguments[0], new RetryOneTime(10));
        client.start();
        client.blockUntilConnected(60, TimeUnit.SECONDS);
        Shared shared = new Shared(client);
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            String answer;
            try {
                answer = shared.answer(words, words[1]);
            } catch (KeeperException error) {
                answer = error.code().name();
            }
            System.out.println(words[0] + " " + answer);
        }
        client.close();
    }

    private String answer(String[] words, String path) throws Exception {
        switch (words[0]) {
            case "count":
                try (SharedCount count = new SharedCount(client, path, 0)) {
                    count.start();
                    count.trySetCount(count.getVersionedValue(), count.getCount() + Integer.parseInt(words[2]));
                    return String.valueOf(count.getCount());
                }
            case "number":
                DistributedAtomicLong number = new DistributedAtomicLong(client, path, new RetryOneTime(10));
                return String.valueOf(number.add(Long.parseLong(words[2])).postValue());
            case "value":
                try (SharedValue value = new SharedValue(client, path, new byte[0])) {
                    value.start();
                    String before = text(value.getValue());
                    value.setValue(bytes(words[2]));
                    return before;
                }
            case "offer":
                return String.valueOf(new SimpleDistributedQueue(client, path).offer(bytes(words[2])));
            case "poll":
                return text(new SimpleDistributedQueue(client, path).poll());
            case "zk-offer":
                return String.valueOf(zooKeepers(path).offer(bytes(words[2])));
            case "zk-remove":
                return text(zooKeepers(path).remove());
            case "wait":
                return String.valueOf(new DistributedBarrier(client, path).waitOnBarrier(60, TimeUnit.SECONDS));
            case "hold":
                DistributedBarrier barrier = new DistributedBarrier(client, path);
                barrier.setBarrier();
                until("/seen");
                barrier.removeBarrier();
                return "removed";
            case "double":
                DistributedDoubleBarrier pair =
                        new DistributedDoubleBarrier(client, path, Integer.parseInt(words[2]));
                pair.enter();
                client.create().creatingParentsIfNeeded().forPath("/entered/curator");
                until("/leave");
                pair.leave();
                return "left";
            default:
                throw new IllegalArgumentException(words[0]);
        }
    }

    private DistributedQueue zooKeepers(String path) throws Exception {
        return new DistributedQueue(client.getZookeeperClient().getZooKeeper(), path, null);
    }

    private void until(String path) throws Exception {
        while (client.checkExists().forPath(path) == null) {
            Thread.sleep(10);
        }
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }
}
