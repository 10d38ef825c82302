// Builds a graph of objects, walks it, changes it, prints sums. Argument: thousands of nodes.
'use strict';
let state = 12345;
const next = (limit) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 4294967296) * limit);
};
const count = Number(process.argv[2]) * 1000;
const nodes = [];
const byName = new Map();
for (let i = 0; i < count; i++) {
  const node = { id: i, name: `node-${i % 9973}-${i}`, weight: next(1000) / 8, edges: [], seen: 0 };
  for (let k = 0; k < 3 && i > 0; k++) node.edges.push(nodes[next(i)]);
  nodes.push(node);
  byName.set(node.name, node);
}
let sum = 0;
for (let walk = 0; walk < 40; walk++) {
  let node = nodes[next(count)];
  for (let step = 0; step < count / 20; step++) {
    node.seen++;
    sum += node.weight;
    node = node.edges.length ? node.edges[next(node.edges.length)] : nodes[next(count)];
  }
}
console.log(sum.toFixed(3));
for (let i = 0; i < count / 2; i++) {
  const id = next(count);
  const node = byName.get(`node-${id % 9973}-${id}`);
  node.edges = node.edges.filter((other) => other.id % 3 !== 0);
  node.label = node.name.slice(5) + next(10);
}
console.log(nodes.reduce((sum, node) => sum + node.edges.length + (node.label ? node.label.length : 0), 0));
console.log(nodes.reduce((sum, node) => (sum * 31 + node.seen) % 1000003, 7));
