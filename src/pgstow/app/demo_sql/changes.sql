/* An afternoon of business. The comment before a statement is what the report says about it. */

-- new bookings
INSERT INTO public.bookings (car_id, renter_id, starts_at, ends_at, status, price, extras)
SELECT 1 + n % (SELECT max(id) FROM public.cars), (SELECT id FROM auth.users ORDER BY id OFFSET n % 50 LIMIT 1),
    timestamptz '2026-12-01 09:00:00+00' + n * interval '20 minutes',
    timestamptz '2026-12-03 09:00:00+00' + n * interval '20 minutes',
    'requested', 99.50 + n % 40, jsonb_build_object('token', md5('late booking ' || n))
FROM generate_series(1, 1500) n;
-- bookings completed
UPDATE public.bookings SET status = 'completed', notes = 'returned on time'
WHERE status = 'active' AND starts_at >= '2026-09-01 00:00:00+00' AND id % 5 = 0;
-- ledger entries for transfers between wallets
WITH sent AS (
    INSERT INTO public.wallet_transactions (from_wallet, to_wallet, amount, reference, created_at)
    SELECT 1 + n % w.wallets, 1 + (n * 7) % w.wallets, 1 + n % 90, md5('afternoon ' || n), '2026-11-21 15:00:00+00'
    FROM generate_series(1, 1000) n, (SELECT count(*)::int AS wallets FROM public.wallets) w
    RETURNING *
)
INSERT INTO public.wallet_ledger (wallet_id, transaction_id, amount, entry, created_at)
SELECT side.wallet_id, sent.id, side.amount, side.entry, sent.created_at
FROM sent,
    LATERAL (VALUES (from_wallet, -amount, 'sent'), (to_wallet, amount, 'received')) side(wallet_id, amount, entry);
-- old jobs deleted
DELETE FROM public.jobs WHERE id <= (SELECT min(id) + 499 FROM public.jobs);
-- clients renamed
UPDATE public.clients SET name = name || ' GmbH', tags = array_append(tags, 'renamed') WHERE id % 100 = 0;
-- page of a contract rewritten
SELECT lo_put(500001, 4096, convert_to(repeat('amended ', 512), 'UTF8'));
