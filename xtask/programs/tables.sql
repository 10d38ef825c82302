-- The transaction stays open: the cursors live in it.
CREATE TEMP TABLE prose (id serial, line text);
COPY prose (line) FROM 'PROSE' WITH (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02');
CREATE TEMP TABLE customers AS
    SELECT id,
        initcap(split_part(line, ' ', 1)) || ' ' || initcap(split_part(line, ' ', 3)) AS name,
        lower(split_part(line, ' ', 2)) || id || '@example.org' AS email,
        timestamptz '2021-03-01' + (id * 7919 % 100000) * interval '17 minutes' AS since,
        (id::bigint * 48271 % 2147483647 % 1000000) / 100.0 AS balance,
        id * 31 % 47 AS region
    FROM prose WHERE id <= 40000;
CREATE TEMP TABLE orders AS
    SELECT g AS id,
        (g::bigint * 48271 % 39989)::int + 1 AS customer,
        timestamptz '2023-01-01' + g * interval '41 seconds' AS placed,
        (array['new', 'paid', 'sent', 'returned'])[g * 7 % 4 + 1] AS state,
        ((g::bigint * 69621) % 99991)::numeric / 100 AS total
    FROM generate_series(1, 120000) g;
BEGIN;
SELECT 'READY';
