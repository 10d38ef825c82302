import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Maps and lists that live long, beside garbage that does not. */
public class Words {
    public static void main(String[] arguments) {
        Map<String, List<Integer>> words = new HashMap<>();
        long sum = 0;
        for (int number = 0; number < 400_000; number++) {
            words.computeIfAbsent("word " + number % 200_000, word -> new ArrayList<>()).add(number);
            sum += ("garbage " + number).hashCode();
        }
        for (int number = 0; number < 200_000; number += 3) {
            words.remove("word " + number);
        }
        for (Map.Entry<String, List<Integer>> entry : words.entrySet()) {
            for (int number : entry.getValue()) {
                sum = sum * 31 + entry.getKey().hashCode() + number;
            }
        }
        System.out.println(words.size() + " " + sum);
    }
}
