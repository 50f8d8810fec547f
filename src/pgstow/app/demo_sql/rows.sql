-- Rows, the same ones every time: everything comes from a counter through a hash.
-- pg_temp.many(n) is n times the scale; pg_temp.pick(n, salt, m) is a number from 0 to m - 1.

CREATE FUNCTION pg_temp.many(n int) RETURNS int IMMUTABLE LANGUAGE sql
    RETURN greatest(1, (n * current_setting('demo.scale')::numeric)::int);
CREATE FUNCTION pg_temp.pick(n bigint, salt int, m int) RETURNS int IMMUTABLE LANGUAGE sql
    RETURN ((hashint8extended(n, salt) & 9223372036854775807) % m)::int;
CREATE FUNCTION pg_temp.moment(n bigint, salt int) RETURNS timestamptz IMMUTABLE LANGUAGE sql
    RETURN timestamptz '2026-01-01 00:00:00+00' + pg_temp.pick(n, salt, 28000000) * interval '1 second';

INSERT INTO auth.users
SELECT md5('user ' || n)::uuid,
    (ARRAY['ana', 'ben', 'chen', 'dana', 'emre', 'fay', 'gita', 'hugo', 'ines', 'jonas'])[1 + pg_temp.pick(n, 1, 10)]
        || '.' || n || '@example.com',
    '$2a$10$' || md5('salt ' || n) || substr(md5('password ' || n), 1, 21),
    jsonb_build_object('locale', (ARRAY['de', 'en', 'fr', 'tr'])[1 + pg_temp.pick(n, 2, 4)],
        'phone', '+49' || 1510000000 + n, 'marketing', pg_temp.pick(n, 3, 2) = 1),
    pg_temp.moment(n, 4),
    CASE WHEN pg_temp.pick(n, 5, 5) > 0 THEN pg_temp.moment(n, 4) + pg_temp.pick(n, 6, 100) * interval '7 hours' END
FROM generate_series(1, pg_temp.many(5000)) n;

INSERT INTO public.clients (name, country, settings, tags, created_at)
SELECT (ARRAY['Nordwind', 'Côte d''Azur', 'Boğaziçi', 'Alpen', 'Königsallee', 'Sunshine'])[1 + pg_temp.pick(n, 10, 6)]
        || ' Cars ' || n,
    (ARRAY['DE', 'FR', 'TR', 'AT', 'ES'])[1 + pg_temp.pick(n, 11, 5)],
    jsonb_build_object('theme', 'light', 'limits', jsonb_build_array(n % 7, n % 11), 'iban', md5('iban ' || n)),
    ARRAY['tier-' || pg_temp.pick(n, 12, 4), 'since-2026'], pg_temp.moment(n, 13)
FROM generate_series(1, pg_temp.many(2000)) n;

INSERT INTO public.user_clients
SELECT md5('user ' || 1 + n % pg_temp.many(5000))::uuid, 1 + n / pg_temp.many(5000) + pg_temp.pick(n, 14, pg_temp.many(1900)),
    (ARRAY['owner', 'manager', 'member'])[1 + pg_temp.pick(n, 15, 3)], pg_temp.moment(n, 16)
FROM generate_series(0, pg_temp.many(8000) - 1) n;

INSERT INTO public.connectors (client_id, kind, config, secret_hash)
SELECT 1 + pg_temp.pick(n, 17, pg_temp.many(2000)), (ARRAY['stripe', 'adyen', 'sepa', 'csv'])[1 + pg_temp.pick(n, 18, 4)],
    jsonb_build_object('url', 'https://api.example.com/v' || n % 3, 'account', md5('account ' || n), 'retries', n % 5),
    decode(md5('secret ' || n), 'hex')
FROM generate_series(1, pg_temp.many(4000)) n;

INSERT INTO public.schedules (connector_id, cron, run_window, timezones)
SELECT 1 + pg_temp.pick(n, 19, pg_temp.many(4000)), n % 60 || ' ' || n % 24 || ' * * *',
    ROW(date '2026-01-01' + n % 300, date '2026-12-31')::public.period, ARRAY['Europe/Berlin', 'UTC']
FROM generate_series(1, pg_temp.many(2000)) n;

INSERT INTO public.jobs (schedule_id, state, attempts, payload, started_at, took)
SELECT 1 + pg_temp.pick(n, 20, pg_temp.many(2000)), (ARRAY['done', 'done', 'done', 'failed'])[1 + pg_temp.pick(n, 21, 4)],
    ARRAY[n % 3, n % 7], jsonb_build_object('rows', pg_temp.pick(n, 22, 10000), 'checksum', md5('job ' || n)),
    pg_temp.moment(n, 23), pg_temp.pick(n, 24, 90000) * interval '1 ms'
FROM generate_series(1, pg_temp.many(20000)) n;

INSERT INTO public.cars (client_id, plate, model, daily_rate, features, mileage_km)
SELECT 1 + pg_temp.pick(n, 30, pg_temp.many(2000)), 'B-' || upper(substr(md5('plate ' || n), 1, 2)) || ' ' || n,
    (ARRAY['VW Golf', 'Fiat 500', 'BMW i3', 'Renault Zoe', 'Tesla Model 3'])[1 + pg_temp.pick(n, 31, 5)],
    25 + pg_temp.pick(n, 32, 12000) / 100.0,
    (ARRAY['gps', 'child seat', 'roof box', 'snow chains', 'tow bar'])[1 : 1 + pg_temp.pick(n, 33, 5)],
    pg_temp.pick(n, 34, 2000000) / 10.0
FROM generate_series(1, pg_temp.many(6000)) n;

INSERT INTO public.bookings
SELECT n, 1 + pg_temp.pick(n, 35, pg_temp.many(6000)), md5('user ' || 1 + pg_temp.pick(n, 36, pg_temp.many(5000)))::uuid,
    pg_temp.moment(n, 37), pg_temp.moment(n, 37) + (1 + pg_temp.pick(n, 38, 14)) * interval '1 day',
    (enum_range(NULL::public.booking_status))[1 + pg_temp.pick(n, 39, 5)], 40 + pg_temp.pick(n, 40, 150000) / 100.0,
    jsonb_build_object('insurance', pg_temp.pick(n, 41, 2) = 1, 'token', md5('booking ' || n)),
    CASE WHEN pg_temp.pick(n, 42, 3) = 0 THEN 'Pick-up at desk ' || n % 40 || E'\nreturn with a full tank' END
FROM generate_series(1, pg_temp.many(60000)) n;
SELECT setval('public.bookings_id_seq', pg_temp.many(60000));

INSERT INTO public.accounting_entries (booking_id, booked_for, account, debit, credit, memo, posted_on)
SELECT b.id, b.starts_at, side.account, side.debit, side.credit, 'booking ' || b.id, b.ends_at::date
FROM public.bookings b,
    LATERAL (VALUES ('1200 receivables', b.price, 0), ('8400 revenue', 0, b.price)) side(account, debit, credit)
WHERE b.status IN ('confirmed', 'active', 'completed');

INSERT INTO public.wallet_transactions (from_wallet, to_wallet, amount, reference, created_at)
SELECT 1 + pg_temp.pick(n, 50, pg_temp.many(5000)), 1 + pg_temp.pick(n, 51, pg_temp.many(5000)),
    1 + pg_temp.pick(n, 52, 20000) / 100.0, md5('transfer ' || n), pg_temp.moment(n, 53)
FROM generate_series(1, pg_temp.many(45000)) n;

INSERT INTO public.wallet_ledger (wallet_id, transaction_id, amount, entry, created_at)
SELECT n, NULL, 5000 + pg_temp.pick(n, 54, 100000) / 100.0, 'deposit', timestamptz '2026-01-01 00:00:00+00'
FROM generate_series(1, pg_temp.many(5000)) n;
INSERT INTO public.wallet_ledger (wallet_id, transaction_id, amount, entry, created_at)
SELECT side.wallet_id, t.id, side.amount, side.entry, t.created_at
FROM public.wallet_transactions t,
    LATERAL (VALUES (t.from_wallet, -t.amount, 'sent'), (t.to_wallet, t.amount, 'received')) side(wallet_id, amount, entry);

INSERT INTO public.wallets (id, owner_id, balance)
SELECT wallet_id, md5('user ' || wallet_id)::uuid, sum(amount) FROM public.wallet_ledger GROUP BY wallet_id;

-- Numbers that no other large object of a new database can have.
SELECT lo_from_bytea(500000 + n, convert_to(
    (SELECT string_agg(md5(n || ' line ' || line), E'\n' ORDER BY line) FROM generate_series(1, 20000 * n) line), 'UTF8'))
FROM generate_series(1, 3) n;
INSERT INTO public.documents (client_id, title, content)
SELECT n, 'Framework contract ' || n, 500000 + n FROM generate_series(1, least(3, pg_temp.many(2000))) n;
