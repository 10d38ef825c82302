// What a native program holds in standard containers. Arguments: file of prose, size in MiB.
#include <cstdint>
#include <deque>
#include <fstream>
#include <iostream>
#include <list>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

static std::mt19937 engine(17);
static std::vector<std::string> lines, words;
static unsigned below(unsigned limit) { return engine() % limit; }
static const std::string &word() { return words[below(words.size())]; }
static const std::string &line() { return lines[below(lines.size())]; }

static long anonymous() {
    std::ifstream status("/proc/self/status");
    std::string text;
    while (std::getline(status, text))
        if (text.rfind("RssAnon:", 0) == 0) return std::stol(text.substr(8)) << 10;
    return 0;
}

struct Point { double x, y; float weight; int32_t owner; };
struct Record {
    uint64_t id;
    std::string name, text;
    int64_t created;
    std::vector<uint32_t> links;
    std::shared_ptr<Record> parent;
    bool active;
};
struct Trie {
    std::map<char, std::unique_ptr<Trie>> next;
    int count = 0;
    void add(const std::string &text, size_t at = 0) {
        if (at == text.size()) { ++count; return; }
        auto &child = next[text[at]];
        if (!child) child = std::make_unique<Trie>();
        child->add(text, at + 1);
    }
};

int main(int, char **arguments) {
    long target = std::stol(arguments[2]) << 20;
    std::ifstream prose(arguments[1]);
    for (std::string text; lines.size() < 30000 && std::getline(prose, text);) lines.push_back(text);
    for (size_t i = 0; i < lines.size(); i += 3) {
        std::istringstream in(lines[i]);
        for (std::string w; in >> w;)
            if (w.size() > 3) words.push_back(w);
    }
    std::unordered_map<uint64_t, std::shared_ptr<Record>> records;
    std::map<std::string, std::vector<uint64_t>> by_name;
    std::unordered_map<std::string, uint32_t> counts;
    std::multimap<int64_t, uint64_t> by_time;
    std::deque<std::string> log;
    std::list<std::pair<uint32_t, double>> samples;
    std::vector<std::vector<Point>> clouds;
    std::vector<uint32_t> postings;
    std::set<std::pair<uint32_t, uint32_t>> edges;
    Trie trie;
    std::normal_distribution<double> normal(0, 25);
    uint64_t id = 0;
    while (anonymous() < target) {
        for (int i = 0; i < 500; ++i) {
            auto record = std::make_shared<Record>();
            record->id = ++id;
            record->name = word() + " " + word();
            record->text = line();
            record->created = 1690000000000 + int64_t(id) * 1337 + below(5000);
            for (unsigned n = below(6); n; --n) {
                record->links.push_back(below(id));
                edges.insert({uint32_t(id), record->links.back()});
            }
            auto parent = records.find(below(id));
            if (parent != records.end()) record->parent = parent->second;
            record->active = below(5) != 0;
            records[id] = record;
            by_name[record->name].push_back(id);
            by_time.insert({record->created, id});
            ++counts[word()];
            log.push_back(std::to_string(record->created) + " " + record->name + " " + line());
            if (log.size() > 20000) log.pop_front();
            samples.push_back({uint32_t(id), normal(engine)});
            postings.push_back(id * 3 + below(3));
            trie.add(word().substr(0, 9));
        }
        std::vector<Point> cloud;
        double x = normal(engine), y = normal(engine);
        for (int i = 0; i < 400; ++i) {
            x += normal(engine) / 100, y += normal(engine) / 100;
            cloud.push_back({x, y, float(below(1000)) / 1000, int32_t(below(id))});
        }
        clouds.push_back(std::move(cloud));
        for (int i = 0; i < 40; ++i) records.erase(below(id));
    }
    std::cout << "READY" << std::endl;
    std::cin.get();
}
