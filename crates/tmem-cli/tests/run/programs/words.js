// Objects, maps and buffers that live long, beside garbage that does not.
const words = new Map();
let sum = 0;
for (let number = 0; number < 400000; number++) {
  const word = `word ${number % 150000}`;
  const list = words.get(word) ?? [];
  list.push({ number, twice: number * 2, name: `${word} again` });
  words.set(word, list);
  sum = (sum + `garbage ${number}`.length * number) % 1000000007;
}
for (let number = 0; number < 150000; number += 3) words.delete(`word ${number}`);
const buffers = [];
for (let number = 0; number < 200; number++) buffers.push(Buffer.alloc(65536, `buffer ${number} `));
for (const [word, list] of words) {
  for (const entry of list) sum = (sum * 31 + word.length + entry.number + entry.twice + entry.name.length) % 1000000007;
}
for (const buffer of buffers) sum = (sum * 31 + buffer.readUInt32LE(4096)) % 1000000007;
console.log(words.size, sum);
