// What a Node.js service holds: records, maps, parsed JSON, closures, a tree. Arguments: file of prose, size in MiB.
'use strict';
const fs = require('fs');
const [prose, size] = process.argv.slice(2);
const target = Number(size) * 1024 * 1024;
const lines = fs.readFileSync(prose, 'utf8').split('\n').slice(0, 40000);
const words = [...new Set(lines.slice(0, 20000).flatMap((l) => l.split(' ')).filter((w) => /^[a-zA-Z]{4,}$/.test(w)))];

let state = 12345;
function random(limit) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 4294967296) * limit);
}
const pick = (list) => list[random(list.length)];
function anonymous() {
  const line = fs.readFileSync('/proc/self/status', 'utf8').match(/RssAnon:\s+(\d+)/);
  return Number(line[1]) * 1024;
}

class Customer {
  constructor(id) {
    this.id = id;
    this.name = `${pick(words)} ${pick(words)}`;
    this.email = `${this.name.toLowerCase().replace(' ', '.')}@example.org`;
    this.since = new Date(1500000000000 + random(200000000) * 1000);
    this.orders = [];
    this.score = random(10000) / 100;
  }
}
class Node {
  constructor(key, value) { this.key = key; this.value = value; this.left = null; this.right = null; }
}
let root = null;
function insert(key, value) {
  const node = new Node(key, value);
  if (!root) { root = node; return; }
  for (let at = root; ;) {
    const side = key < at.key ? 'left' : 'right';
    if (!at[side]) { at[side] = node; return; }
    at = at[side];
  }
}
const customers = new Map(), byWord = new Map(), documents = [], listeners = [], recent = new Map();
let id = 0;
while (anonymous() < target) {
  for (let i = 0; i < 400; i++) {
    const customer = new Customer(++id);
    customers.set(customer.email, customer);
    for (let n = random(4); n > 0; n--) {
      customer.orders.push({
        id: id * 10 + n,
        placed: Date.UTC(2023, random(12), random(28)),
        state: pick(['new', 'paid', 'sent']),
        items: Array.from({ length: 1 + random(4) }, () => (
          { sku: `${pick(words)}-${random(10000)}`, count: 1 + random(5), price: random(50000) / 100 })),
      });
    }
    documents.push(JSON.parse(JSON.stringify({
      id, title: pick(lines).slice(0, 60), body: [pick(lines), pick(lines)].join(' '),
      meta: { tags: [pick(words), pick(words)], revision: random(50), stars: random(5) + 0.5 } })));
    insert(random(1 << 30), customer);
    const word = pick(words);
    if (!byWord.has(word)) byWord.set(word, []);
    byWord.get(word).push(id);
    listeners.push((event) => event.id === customer.id && customer.score > id);
    recent.set(`/${word}/${id}`, { status: 200, at: id * 37,
      headers: { etag: random(1e9).toString(36), age: random(9000) } });
    if (recent.size > 4000) recent.delete(recent.keys().next().value);
  }
  for (let i = 0; i < 30; i++) documents[random(documents.length)] = null;
}
console.log('READY');
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
