-- What is made once the rows are there: keys, indexes, views, and the code that keeps balances right.

ALTER TABLE public.user_clients ADD FOREIGN KEY (user_id) REFERENCES auth.users ON DELETE CASCADE;
ALTER TABLE public.user_clients ADD FOREIGN KEY (client_id) REFERENCES public.clients ON DELETE CASCADE;
ALTER TABLE public.connectors ADD FOREIGN KEY (client_id) REFERENCES public.clients;
ALTER TABLE public.schedules ADD FOREIGN KEY (connector_id) REFERENCES public.connectors;
ALTER TABLE public.jobs ADD FOREIGN KEY (schedule_id) REFERENCES public.schedules;
ALTER TABLE public.cars ADD FOREIGN KEY (client_id) REFERENCES public.clients;
ALTER TABLE public.bookings ADD PRIMARY KEY (id, starts_at);
ALTER TABLE public.bookings ADD FOREIGN KEY (car_id) REFERENCES public.cars;
ALTER TABLE public.bookings ADD FOREIGN KEY (renter_id) REFERENCES auth.users;
ALTER TABLE public.bookings ADD CHECK (ends_at > starts_at);
ALTER TABLE public.accounting_entries ADD FOREIGN KEY (booking_id, booked_for) REFERENCES public.bookings (id, starts_at);
ALTER TABLE public.wallets ADD FOREIGN KEY (owner_id) REFERENCES auth.users;
ALTER TABLE public.wallet_transactions ADD FOREIGN KEY (from_wallet) REFERENCES public.wallets;
ALTER TABLE public.wallet_transactions ADD FOREIGN KEY (to_wallet) REFERENCES public.wallets;
ALTER TABLE public.wallet_ledger ADD FOREIGN KEY (wallet_id) REFERENCES public.wallets;
ALTER TABLE public.wallet_ledger ADD FOREIGN KEY (transaction_id) REFERENCES public.wallet_transactions;
ALTER TABLE public.documents ADD FOREIGN KEY (client_id) REFERENCES public.clients;

CREATE UNIQUE INDEX users_email ON auth.users (lower(email));
CREATE INDEX bookings_renter ON public.bookings (renter_id, starts_at DESC);
CREATE INDEX bookings_open ON public.bookings (car_id) WHERE status IN ('requested', 'confirmed');
CREATE INDEX wallet_ledger_wallet ON public.wallet_ledger (wallet_id, created_at) INCLUDE (amount);
CREATE INDEX accounting_entries_posted ON public.accounting_entries USING brin (posted_on);
CREATE INDEX clients_settings ON public.clients USING gin (settings jsonb_path_ops);
CREATE INDEX cars_features ON public.cars USING gin (features);
CREATE STATISTICS public.cars_model_rate (dependencies) ON model, daily_rate FROM public.cars;

CREATE VIEW public.revenue_by_month AS
    SELECT date_trunc('month', starts_at, 'UTC') AS month, status, count(*) AS bookings, sum(price) AS revenue
    FROM public.bookings GROUP BY 1, 2;
CREATE MATERIALIZED VIEW public.fleet AS
    SELECT client_id, count(*) AS cars, avg(daily_rate)::numeric(8, 2) AS average_rate, sum(mileage_km) AS mileage_km
    FROM public.cars GROUP BY client_id;
CREATE UNIQUE INDEX fleet_client ON public.fleet (client_id);

CREATE FUNCTION public.move_balance() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    UPDATE public.wallets SET balance = balance + NEW.amount WHERE id = NEW.wallet_id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION public.move_balance() IS 'Keeps wallets.balance equal to the sum of the ledger';
CREATE TRIGGER move_balance AFTER INSERT ON public.wallet_ledger
    FOR EACH ROW EXECUTE FUNCTION public.move_balance();

ALTER TABLE public.documents ENABLE ROW LEVEL SECURITY;
CREATE POLICY published ON public.documents FOR SELECT USING (title NOT LIKE 'Draft%');
