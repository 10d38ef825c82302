import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** Builds a graph of objects, walks it, changes it, prints sums. Argument: thousands of nodes. */
final class Graph {
    static final class Node {
        final int id;
        final String name;
        final List<Node> edges = new ArrayList<>(3);
        int seen;

        Node(int id) {
            this.id = id;
            this.name = "node-" + id % 9973 + "-" + id;
        }
    }

    public static void main(String[] arguments) {
        int count = Integer.parseInt(arguments[0]) * 1000;
        Random random = new Random(5);
        List<Node> nodes = new ArrayList<>();
        Map<String, Node> byName = new HashMap<>();
        for (int i = 0; i < count; i++) {
            Node node = new Node(i);
            for (int k = 0; k < 3 && i > 0; k++) {
                node.edges.add(nodes.get(random.nextInt(i)));
            }
            nodes.add(node);
            byName.put(node.name, node);
        }
        long sum = 0;
        for (int walk = 0; walk < 40; walk++) {
            Node node = nodes.get(random.nextInt(count));
            for (int step = 0; step < count / 10; step++) {
                node.seen++;
                sum += node.id;
                int degree = node.edges.size();
                node = degree == 0 ? nodes.get(random.nextInt(count)) : node.edges.get(random.nextInt(degree));
            }
        }
        System.out.println(sum);
        for (int i = 0; i < count; i++) {
            int id = random.nextInt(count);
            byName.get("node-" + id % 9973 + "-" + id).edges.removeIf(other -> other.id % 5 == 0);
        }
        List<Node> sorted = new ArrayList<>(nodes);
        Collections.sort(sorted, Comparator.comparing((Node node) -> node.name));
        long hash = 7;
        for (Node node : sorted) {
            hash = hash * 31 + node.seen + node.edges.size();
        }
        System.out.println(hash);
    }
}
