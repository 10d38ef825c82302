DECLARE sorted_ROUND CURSOR FOR
    SELECT o.id, o.placed, o.state, o.total, c.name, c.email, c.balance
    FROM orders o JOIN customers c ON c.id = o.customer
    WHERE o.id % 12 = ROUND % 12 ORDER BY c.name, o.placed;
FETCH 1 FROM sorted_ROUND;
DECLARE grouped_ROUND CURSOR FOR
    SELECT c.region, c.since, count(*), sum(o.total), max(o.placed), min(c.name), array_agg(o.id)
    FROM orders o JOIN customers c ON c.id = o.customer
    WHERE (o.id + ROUND) % 9 < 3 GROUP BY c.region, c.since;
FETCH 1 FROM grouped_ROUND;
DECLARE documents_ROUND CURSOR FOR
    SELECT jsonb_build_object('id', c.id, 'name', c.name, 'email', c.email, 'since', c.since,
        'note', p.line, 'region', c.region) AS document
    FROM customers c JOIN prose p ON p.id = c.id + 500 * (ROUND + 1)
    WHERE c.id % 10 = ROUND % 10 ORDER BY p.line;
FETCH 1 FROM documents_ROUND;
SELECT 'READY';
