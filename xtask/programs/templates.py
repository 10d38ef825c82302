"""Prints a C++ file with many uses of standard templates, for the compiler to work at. Argument: size in MiB."""
import random, sys

size = int(sys.argv[1])
rng = random.Random(3)
nouns = ("order item user account session page cache index route queue "
         "token frame layer node edge event batch shard block tree").split()
verbs = "load store merge split find count sort group route apply drain fold scan build check".split()
simple = ["int", "long", "double", "std::string", "std::uint8_t", "std::size_t"]
headers = ("algorithm array cstdint deque functional iostream list map memory numeric optional regex set sstream string "
           "tuple unordered_map variant vector").split()
print("\n".join(f"#include <{h}>" for h in headers))


def kind(depth=2):
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(simple)
    form = rng.choice(["std::vector<{}>", "std::map<std::string, {}>", "std::unordered_map<int, {}>",
                       "std::optional<{}>", "std::shared_ptr<{}>", "std::deque<{}>",
                       "std::tuple<int, {}, std::string>", "std::variant<int, {}>"])
    return form.format(kind(depth - 1))


for n in range(max(12, size * 2)):
    noun = rng.choice(nouns)
    name = f"{noun.title()}{n}"
    fields = [(kind(), f"{rng.choice(nouns)}_{i}") for i in range(rng.randrange(3, 8))]
    print(f"\nstruct {name} {{\n    int key = {n};\n    std::string label = \"{noun} {n}\";")
    print(f"    double weight = {rng.random():.4f};")
    for type_, field in fields:
        print(f"    {type_} {field}{{}};")
    print(f"    bool operator<(const {name} &o) const {{")
    print("        return std::tie(weight, key, label) < std::tie(o.weight, o.key, o.label);\n    }\n};")
    verb = rng.choice(verbs)
    print(f"""std::map<std::string, std::vector<{name}>> {verb}_{n}(std::vector<{name}> values, int limit) {{
    std::sort(values.begin(), values.end());
    std::map<std::string, std::vector<{name}>> groups;
    std::unordered_map<int, std::size_t> seen;
    for (auto &value : values) {{
        if (seen[value.key]++ < static_cast<std::size_t>(limit)) groups[value.label].push_back(std::move(value));
    }}
    auto heavy = std::count_if(values.begin(), values.end(),
                               [=](const {name} &v) {{ return v.weight > {rng.random():.3f} * limit; }});
    std::function<double(double)> scale = [heavy](double w) {{ return w / (1.0 + static_cast<double>(heavy)); }};
    for (auto &[label, group] : groups) {{
        std::transform(group.begin(), group.end(), group.begin(),
                       [&](auto v) {{ v.weight = scale(v.weight); return v; }});
        std::stable_partition(group.begin(), group.end(),
                              [](const {name} &v) {{ return v.key % {rng.randrange(2, 9)} == 0; }});
    }}
    std::set<std::tuple<int, std::string>> keys;
    for (const auto &value : values) keys.emplace(value.key, value.label);
    if (keys.size() > {rng.randrange(5, 50)}) groups.erase(groups.begin());
    return groups;
}}""")
