-- A marketplace for rental cars: people, companies, money, bookings, and the integrations around them.

CREATE SCHEMA auth;
COMMENT ON SCHEMA auth IS 'Sign-in; managed apart from the application';

CREATE TYPE public.booking_status AS ENUM ('requested', 'confirmed', 'active', 'completed', 'cancelled');
CREATE TYPE public.period AS (starts date, ends date);
CREATE DOMAIN public.currency AS char(3) CHECK (VALUE ~ '^[A-Z]{3}$');

CREATE TABLE auth.users (
    id uuid PRIMARY KEY,
    email text NOT NULL,
    encrypted_password text NOT NULL,
    raw_user_meta_data jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL,
    last_sign_in_at timestamptz
);

CREATE TABLE public.clients (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    country char(2) NOT NULL,
    settings jsonb NOT NULL DEFAULT '{}',
    tags text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE public.clients IS 'Companies that rent cars out';

CREATE TABLE public.user_clients (
    user_id uuid NOT NULL,
    client_id int NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'manager', 'member')),
    added_at timestamptz NOT NULL
);

CREATE TABLE public.connectors (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id int NOT NULL,
    kind text NOT NULL,
    config jsonb NOT NULL,
    secret_hash bytea NOT NULL
);

CREATE TABLE public.schedules (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connector_id int NOT NULL,
    cron text NOT NULL,
    run_window public.period,
    timezones text[] NOT NULL
);

CREATE TABLE public.jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schedule_id int NOT NULL,
    state text NOT NULL,
    attempts int[] NOT NULL DEFAULT '{}',
    payload jsonb NOT NULL,
    started_at timestamptz NOT NULL,
    took interval
);

CREATE TABLE public.cars (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id int NOT NULL,
    plate text NOT NULL,
    model text NOT NULL,
    daily_rate numeric(8, 2) NOT NULL,
    weekly_rate numeric(9, 2) GENERATED ALWAYS AS (daily_rate * 6) STORED,
    features text[] NOT NULL,
    mileage_km double precision NOT NULL
);

CREATE TABLE public.bookings (
    id bigint NOT NULL,
    car_id int NOT NULL,
    renter_id uuid NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    status public.booking_status NOT NULL,
    price numeric(10, 2) NOT NULL,
    extras jsonb NOT NULL DEFAULT '{}',
    notes text
) PARTITION BY RANGE (starts_at);
COMMENT ON COLUMN public.bookings.price IS 'What the renter pays, in the currency of the wallet';
CREATE SEQUENCE public.bookings_id_seq OWNED BY public.bookings.id;
ALTER TABLE public.bookings ALTER id SET DEFAULT nextval('public.bookings_id_seq');

DO $$
BEGIN
    FOR month IN 1..12 LOOP
        EXECUTE format(
            'CREATE TABLE public.bookings_2026_%1$s PARTITION OF public.bookings FOR VALUES FROM (%2$L) TO (%3$L)',
            to_char(month, 'FM00'), make_timestamptz(2026, month, 1, 0, 0, 0, 'UTC'),
            make_timestamptz(2026 + month / 12, month % 12 + 1, 1, 0, 0, 0, 'UTC'));
    END LOOP;
END
$$;

CREATE TABLE public.wallets (
    id int PRIMARY KEY,
    owner_id uuid NOT NULL,
    currency public.currency NOT NULL DEFAULT 'EUR',
    balance numeric(14, 2) NOT NULL
);

CREATE TABLE public.wallet_transactions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_wallet int NOT NULL,
    to_wallet int NOT NULL,
    amount numeric(12, 2) NOT NULL CHECK (amount > 0),
    reference text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE public.wallet_ledger (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    wallet_id int NOT NULL,
    transaction_id bigint,
    amount numeric(12, 2) NOT NULL,
    entry text NOT NULL,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE public.wallet_ledger IS 'Every movement of money; the sum over a wallet is its balance';

CREATE TABLE public.accounting_entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    booking_id bigint NOT NULL,
    booked_for timestamptz NOT NULL,
    account text NOT NULL,
    debit numeric(12, 2) NOT NULL DEFAULT 0,
    credit numeric(12, 2) NOT NULL DEFAULT 0,
    memo text NOT NULL,
    posted_on date NOT NULL
);

CREATE TABLE public.documents (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id int NOT NULL,
    title text NOT NULL,
    content oid NOT NULL
);
