// What a JVM service holds: records, maps, queues, a cache. Arguments: file of prose, size in MiB.
import java.math.BigDecimal;
import java.nio.file.*;
import java.time.*;
import java.util.*;
import java.util.concurrent.*;

public class Shop {
    enum State { NEW, PAID, SENT, RETURNED }
    record Item(String sku, int count, BigDecimal price) {}
    record Address(String street, String city, int zip) {}
    static final class Order {
        final long id;
        final Customer customer;
        final LocalDateTime placed;
        State state;
        final List<Item> items = new ArrayList<>();
        Order(long id, Customer customer, LocalDateTime placed, State state) {
            this.id = id;
            this.customer = customer;
            this.placed = placed;
            this.state = state;
        }
    }
    static final class Customer {
        final int id;
        final String name, email;
        final Address address;
        final Instant since;
        double score;
        final List<Order> orders = new LinkedList<>();
        Customer(int id) {
            this.id = id;
            name = word() + " " + word();
            email = name.toLowerCase().replace(' ', '.') + "@example.org";
            address = new Address(random.nextInt(200) + " " + word() + " Street", word(), random.nextInt(100000));
            since = Instant.ofEpochSecond(1_500_000_000L + random.nextInt(200_000_000));
            score = random.nextInt(10000) / 100.0;
        }
    }

    static final Random random = new Random(42);
    static List<String> lines;
    static String[] words;
    static String word() { return words[random.nextInt(words.length)]; }
    static String line() { return lines.get(random.nextInt(lines.size())); }

    static long anonymous() throws Exception {
        for (String l : Files.readAllLines(Path.of("/proc/self/status")))
            if (l.startsWith("RssAnon")) return Long.parseLong(l.replaceAll("[^0-9]", "")) << 10;
        return 0;
    }

    public static void main(String[] arguments) throws Exception {
        long target = Long.parseLong(arguments[1]) << 20;
        lines = Files.readAllLines(Path.of(arguments[0])).stream().limit(30000).toList();
        words = lines.stream().flatMap(l -> Arrays.stream(l.split(" ")))
            .filter(w -> w.matches("[a-zA-Z]{4,}")).distinct().toArray(String[]::new);
        Map<Integer, Customer> customers = new HashMap<>();
        Map<String, Customer> byEmail = new ConcurrentHashMap<>();
        NavigableMap<LocalDateTime, Order> byTime = new TreeMap<>();
        Map<String, Set<Integer>> byWord = new HashMap<>();
        LinkedHashMap<String, byte[]> cache = new LinkedHashMap<>();
        Deque<String> log = new ArrayDeque<>();
        long orders = 0;
        int id = 0;
        // The heap is bounded at twice the target; at that point the collector keeps what is alive.
        while (anonymous() < target) {
            for (int i = 0; i < 300; i++) {
                Customer customer = new Customer(++id);
                customers.put(id, customer);
                byEmail.put(customer.email, customer);
                for (int n = random.nextInt(4); n > 0; n--) {
                    LocalDateTime placed = LocalDateTime.of(2023, 1, 1, 0, 0).plusSeconds(random.nextInt(31_000_000));
                    Order order = new Order(++orders, customer, placed, State.values()[random.nextInt(4)]);
                    for (int m = random.nextInt(4); m >= 0; m--) {
                        BigDecimal price = BigDecimal.valueOf(random.nextInt(50000), 2);
                        order.items.add(new Item(word() + "-" + random.nextInt(9999), 1 + random.nextInt(5), price));
                    }
                    customer.orders.add(order);
                    byTime.put(order.placed, order);
                }
                byWord.computeIfAbsent(word(), w -> new HashSet<>()).add(id);
                cache.put("/" + word() + "/" + id, (line() + "\n" + line()).getBytes());
                if (cache.size() > 20000) cache.remove(cache.keySet().iterator().next());
                log.add(customer.since + " " + customer.email + " " + line());
                if (log.size() > 30000) log.removeFirst();
            }
            for (int i = 0; i < 20; i++) customers.remove(random.nextInt(id));
        }
        System.out.println("READY");
        System.in.read();
    }
}
